"""The command line as a whole: quick to start, and errors told as sentences."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from deploykit.errors import DeploykitError, DeviceError, ParityError
from deploykit_cli.grouped import HEADINGS
from deploykit_cli.main import SentenceGroup, app, options

HEAVY = ("ai_edge_litert", "numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "torch")


def command_that_raises(error: BaseException) -> typer.Typer:
    """A command line with the options of the real one and a verb `fail`."""
    failing = typer.Typer(cls=SentenceGroup, rich_markup_mode=None)
    failing.callback()(options)

    @failing.command()
    def fail() -> None:
        raise error

    return failing


def test_every_option_of_export_stands_under_one_heading_of_its_help() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, SentenceGroup)
    command = group.commands["export"]
    listed = [name for names in HEADINGS.values() for name in names]
    named = {str(one.name) for one in command.params} | {"help"}
    assert set(listed) == named - {"checkpoint"}
    assert len(listed) == len(set(listed))
    shown = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "80"}).stdout
    places = [shown.index(f"\n{heading}:\n") for heading in HEADINGS]
    assert places == sorted(places)
    assert places[1] < shown.index("--max-bytes") < places[2]


def test_starting_imports_nothing_heavy() -> None:
    program = (
        "import sys, deploykit_cli.main; "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_verbs(flag: str) -> None:
    result = CliRunner().invoke(app, [flag])
    assert result.exit_code == 0
    assert "bench" in result.stdout
    assert CliRunner().invoke(app, ["bench", flag]).exit_code == 0


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("deploykit ")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DeploykitError("x is wrong; do y"), 3, "error: x is wrong; do y\n"),
        (ParityError("fc1 differs"), 1, "error: fc1 differs\n"),
        (DeviceError("no answer"), 5, "error: no answer\n"),
        (FileNotFoundError(2, "No such file or directory", "a.pt"), 3, "error: a.pt: No such"),
        (OSError(28, "No space left on device"), 3, "error: No space left on device\n"),
    ],
)
def test_error_is_one_sentence(error: Exception, code: int, told: str) -> None:
    result = CliRunner().invoke(command_that_raises(error), ["fail"])
    assert result.exit_code == code
    assert result.stderr.startswith(told)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_adds_the_traceback(words: list[str]) -> None:
    result = CliRunner().invoke(command_that_raises(DeploykitError("x is wrong")), words)
    assert result.exit_code == 3
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: x is wrong\n")


def test_a_bug_is_not_hidden() -> None:
    result = CliRunner().invoke(command_that_raises(KeyError("bug")), ["fail"])
    assert isinstance(result.exception, KeyError)


def test_ctrl_c() -> None:
    result = CliRunner().invoke(command_that_raises(KeyboardInterrupt()), ["fail"])
    assert result.exit_code == 130


def test_unknown_verb_is_refused() -> None:
    result = CliRunner().invoke(app, ["exprt"])
    assert result.exit_code == 2
    assert "exprt" in result.stderr
