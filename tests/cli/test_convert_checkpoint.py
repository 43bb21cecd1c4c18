"""deploykit convert-checkpoint: prints a script, reads names only."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from tests.cli.running import assert_refused, run


def test_it_prints_a_script_for_the_file(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "args": Namespace()}, tmp_path / "net.pt")
    result = run("convert-checkpoint", tmp_path / "net.pt")
    assert result.exit_code == 0
    compile(result.stdout, "resave.py", "exec")
    assert str(tmp_path / "net.tensors.pt") in result.stdout
    assert not (tmp_path / "net.tensors.pt").exists()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert_refused(run("convert-checkpoint", tmp_path / "none.pt"), 3, "there is no such file")
