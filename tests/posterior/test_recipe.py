"""The script that re-saves a checkpoint where it was trained: run, and its result read."""

from __future__ import annotations

import importlib
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
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


def test_a_parameter_store_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(STORE, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"torch\.save\(guide\.state_dict\(\), .*script"):
        load_checkpoint(tmp_path / "c.pt")


LAPLACE = """
import torch

class DiagLaplace:
    def __init__(self, model):
        self.model = model

    def state_dict(self):
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return {"cls_name": "DiagLaplace", "mean": torch.zeros(size), "H": torch.ones(size),
                "prior_precision": torch.ones(1), "sigma_noise": 1.0, "temperature": 1.0}

class Plain:
    def state_dict(self):
        return {"weight": torch.ones(2, 3)}

class Empty:
    pass
"""


@pytest.fixture
def laplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of that name which the script finds beside itself."""
    (tmp_path / "laplace.py").write_text(LAPLACE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("laplace")
    del sys.modules["laplace"]


def test_a_laplace_fit_comes_through_with_its_weights(laplace: Any, tmp_path: Path) -> None:
    found = load_checkpoint(resaved(laplace.DiagLaplace(LAYER), tmp_path))
    np.testing.assert_array_equal(found.tensors["weight"], LAYER.weight.detach().numpy())
    assert found.flat is not None
    np.testing.assert_array_equal(found.flat.variance, np.full(8, 0.5, np.float32))
    with pytest.raises(CheckpointError, match=r"a whole pickled Laplace fit .*la\.state_dict\(\)"):
        load_checkpoint(tmp_path / "net.pt")


def test_any_object_with_a_state_dict_comes_through(laplace: Any, tmp_path: Path) -> None:
    found = load_checkpoint(resaved(laplace.Plain(), tmp_path))
    np.testing.assert_array_equal(found.tensors["weight"], np.ones((2, 3), np.float32))


@pytest.mark.parametrize("wrapped", [lambda it: it, lambda it: {"net": it, "epoch": 3}])
def test_nothing_is_written_where_no_tensor_is_left(
    wrapped: Callable[[object], object], laplace: Any, tmp_path: Path
) -> None:
    torch.save(wrapped(laplace.Empty()), tmp_path / "net.pt")
    script = tmp_path / "resave.py"
    script.write_text(recipe(tmp_path / "net.pt"), encoding="utf-8")
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no tensor is left" in done.stderr
    assert "next: deploykit" not in done.stdout
    assert not (tmp_path / "net.tensors.pt").exists()


def test_unconstrained_scales_are_refused(tmp_path: Path) -> None:
    torch.save(STORE["params"], tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="saved in unconstrained form"):
        load_checkpoint(tmp_path / "c.pt")


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    torch.save({"args": Namespace()}, tmp_path / "c.pt")
    assert "it needs argparse" in recipe(tmp_path / "c.pt")
