"""The spotter of README: its command runs with the files that its script writes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cli.running import run
from tests.exported import ROOT


def commands() -> list[list[str]]:
    """The two commands of README, one word each."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        shlex.split(line)
        for line in re.findall(r"^\$ \.venv/bin/(.*spotter.*)$", text, flags=re.MULTILINE)
    ]


def test_the_commands_of_readme_run(tmp_path: Path) -> None:
    make, export = commands()
    assert (make[0], export[0]) == ("python", "deploykit")
    folder, out = Path(make[-1]), tmp_path / "bundle"
    words = [word.replace(str(folder), str(tmp_path)) for word in export[1:]]
    words[words.index("--out") + 1] = str(out)
    words[words.index("--model") + 1] = str(ROOT / export[export.index("--model") + 1])
    subprocess.run([sys.executable, ROOT / make[1], tmp_path], check=True)
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    for file in ("model.onnx", "model.tflite"):
        described = run("inspect", out / file)
        assert described.exit_code == 0, described.stderr
        assert "ArgMax" in described.stdout
        assert "Island: a part of the network that is computed in float" in described.stdout
    for line in ("embedding Embedding 32", "answer ArgMax 1", "0 of 224,232 integers differ"):
        assert line in told
