"""Running the command line: in this process for speed, in one of its own where signals matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from deploykit_cli.main import app
from tests.exported import ROOT

COMMAND = [sys.executable, "-c", "from deploykit_cli.main import main; main()"]


def run(*words: str | Path) -> Result:
    """The command line in this process; a bug is raised, not told."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*words: str | Path, before: str = "") -> subprocess.Popen[str]:
    """The command line in a process of its own; `before` is Python that runs first."""
    program = [COMMAND[0], COMMAND[1], f"{before}\n{COMMAND[2]}"]
    return subprocess.Popen(
        [*program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def assert_refused(result: Result, code: int, *told: str) -> None:
    """It ended with `code` and one sentence, and nothing on stdout."""
    *stages, sentence = result.stderr.rstrip("\n").split("\n")
    assert result.exit_code == code, result.stderr
    assert sentence.startswith("error: ")
    assert not [line for line in stages if not line.rstrip().endswith(" s")]
    for fragment in told:
        assert fragment in sentence
    assert result.stdout == ""
