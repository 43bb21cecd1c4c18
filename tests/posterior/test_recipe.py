"""The script that re-saves a checkpoint where it was trained: run, and its result read."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import constraints

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.recipe import recipe

LAYER = nn.Linear(3, 2)
STORE = {
    "params": {
        "AutoNormal.locs.weight": torch.ones(2, 3),
        "AutoNormal.scales.weight": torch.full((2, 3), -1.0),
    },
    "constraints": {
        "AutoNormal.locs.weight": constraints.real,
        "AutoNormal.scales.weight": constraints.positive,
    },
}


def resaved(content: Any, folder: Path) -> Path:
    """Written by the script, after deploykit refused the file itself."""
    path = folder / "net.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="deploykit convert-checkpoint"):
        load_checkpoint(path)
    script = folder / "resave.py"
    script.write_text(recipe(path), encoding="utf-8")
    subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    return folder / "net.tensors.pt"


@pytest.mark.parametrize(
    "content",
    [
        LAYER,
        {"model": LAYER, "args": Namespace(lr=1), "best": np.float64(0.9)},
        {"state_dict": LAYER.state_dict(), "rng": Random(0), "epoch": 3},
    ],
)
def test_the_weights_come_through(content: Any, tmp_path: Path) -> None:
    tensors = load_checkpoint(resaved(content, tmp_path)).tensors
    np.testing.assert_array_equal(tensors["weight"], LAYER.weight.detach().numpy())
    assert tensors.keys() == {"weight", "bias"}


def test_pyros_parameters_are_constrained(tmp_path: Path) -> None:
    tensors = load_checkpoint(resaved(STORE, tmp_path)).tensors
    np.testing.assert_allclose(tensors["weight_variance"], np.exp(-2.0), rtol=1e-6)
    assert load_checkpoint(tmp_path / "net.tensors.pt").format == "Pyro AutoNormal"


def test_unconstrained_scales_are_refused(tmp_path: Path) -> None:
    torch.save(STORE["params"], tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="saved in unconstrained form"):
        load_checkpoint(tmp_path / "c.pt")


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    torch.save({"args": Namespace()}, tmp_path / "c.pt")
    assert "it needs argparse" in recipe(tmp_path / "c.pt")
