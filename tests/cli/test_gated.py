"""What the command line says of checkpoints with gates."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.cli.running import run
from tests.exported import save
from tests.posterior.gnj_layers import images
from tests.posterior.test_numerics import with_lost_gates
from tests.posterior.test_running_average import saved


def told(result_text: str) -> str:
    """Its words, however the lines are broken."""
    return " ".join(result_text.split())


def test_averages_are_taken_and_it_is_said(tmp_path: Path) -> None:
    data = save(tmp_path / "data.npz", inputs=images(32))
    words = (
        "export", saved(tmp_path / "net.pt"), "--model", "tests.posterior.l0_layers:l0_net",
        "--input-shape", "1,1,8,8", "--data", data, "--out", tmp_path / "b",
    )  # fmt: skip
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    assert "Of the checkpoint: avg_params" in told(first.stdout)
    assert "closed (family, -2.3979)" in told(first.stdout)
    assert "It holds state_dict too; to take that: --weights state_dict" in told(first.stdout)
    second = run(*words, "--weights", "state_dict")
    assert second.exit_code == 0, second.stderr
    assert "Of the checkpoint: state_dict" in told(second.stdout)


def test_gates_that_published_code_loses_are_told(tmp_path: Path) -> None:
    torch.save(with_lost_gates().state_dict(), tmp_path / "net.pt")
    data = save(tmp_path / "data.npz", inputs=images(32))
    words = (
        "export", tmp_path / "net.pt", "--model", "tests.posterior.gate_layers:sbp_net",
        "--input-shape", "1,1,8,8", "--data", data, "--out", tmp_path / "b",
    )  # fmt: skip
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    assert "exported are the right ones (--numerics reference: the published)" in told(first.stdout)
    second = run(*words, "--numerics", "reference")
    assert second.exit_code == 0, second.stderr
    assert "exported are the published ones" in told(second.stdout)
    shown = run("inspect", tmp_path / "net.pt")
    assert "loses the least noisy gates" in told(shown.stdout)
