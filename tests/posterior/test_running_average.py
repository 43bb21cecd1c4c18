"""Checkpoints whose evaluation uses averaged parameters, kept as a list beside the state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from tests.posterior.gnj_layers import images
from tests.posterior.l0_layers import l0_net
from tests.posterior.trained import trained

BETA, STEPS = 0.9, 5


def saved(path: Path, prefix: str = "", **changed: Any) -> Path:
    """A file as the author's script writes it, averages and state of two different networks."""
    state = {f"{prefix}{key}": value for key, value in trained(l0_net(), 1).state_dict().items()}
    averaged = trained(l0_net(), 2)
    content = {
        "epoch": 3, "state_dict": state, "best_prec1": 97.5, "curr_prec1": torch.tensor(97.0),
        "beta_ema": BETA, "optimizer": {"state": {}, "param_groups": []}, "total_steps": 40,
        "exp_flops": [1.0, 2.0], "exp_l0": [1.0], "steps_ema": float(STEPS),
        "avg_params": [p.detach() * (1 - BETA**STEPS) for p in averaged.parameters()],
    }  # fmt: skip
    torch.save(
        {key: value for key, value in (content | changed).items() if value is not None}, path
    )
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
def test_averages_are_taken_with_the_statistics_of_the_state(tmp_path: Path, prefix: str) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "net.pt", prefix))
    assert checkpoint.unwrapped == ("avg_params", *([prefix] if prefix else []))
    assert checkpoint.beside == ("state_dict",)
    expected = dict(trained(l0_net(), 2).named_parameters())
    buffers = dict(trained(l0_net(), 1).named_buffers())
    assert checkpoint.tensors.keys() == expected.keys() | buffers.keys()
    for key, parameter in expected.items():
        np.testing.assert_allclose(checkpoint.tensors[key], parameter.detach(), rtol=1e-5)
    for key, buffer in buffers.items():
        np.testing.assert_array_equal(checkpoint.tensors[key], buffer)


def test_averages_fold_to_the_network_that_the_author_evaluates(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "net.pt"))
    evaluated = trained(l0_net(), 1)
    with torch.no_grad():
        for parameter, average in zip(
            evaluated.parameters(), trained(l0_net(), 2).parameters(), strict=True
        ):
            parameter.copy_(average)
    folded = fold_posterior(checkpoint, l0_net, images())
    expected = run(evaluated, images())
    difference = np.abs(run(folded.module, images()) - expected).max() / np.abs(expected).max()
    assert difference < 1e-5


@pytest.mark.parametrize("wanted", ["avg_params", "state_dict"])
def test_either_can_be_asked_for(tmp_path: Path, wanted: str) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "net.pt"), wanted)
    raw = trained(l0_net(), 1).state_dict()["0.weights"].numpy()
    assert checkpoint.unwrapped == (wanted,)
    assert np.array_equal(checkpoint.tensors["0.weights"], raw) == (wanted == "state_dict")


def test_file_without_averages_is_as_any_other(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt", avg_params=None, steps_ema=None)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.unwrapped, checkpoint.beside) == (("state_dict",), ())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"steps_ema": 0.0}, "average nothing yet"),
        ({"beta_ema": 1.0}, "average nothing yet"),
        ({"beta_ema": None}, "no number beta_ema"),
        ({"steps_ema": "five"}, "no number steps_ema"),
        ({"avg_params": [torch.zeros(3)]}, "the 1 tensors of avg_params are not the"),
    ],
)
def test_refusals_name_the_way_out(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    path = saved(tmp_path / "net.pt", **changed)
    with pytest.raises(CheckpointError, match=rf"{sentence}.*--weights state_dict"):
        load_checkpoint(path)
    assert load_checkpoint(path, "state_dict").tensors
