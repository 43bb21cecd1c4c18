"""What inspect says about a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.describe import QUANTILES, inspect_checkpoint
from tests.posterior.checkpoints import checkpoint_of, with_tensor
from tests.posterior.gnj_layers import Conv2dGNJ, LinearGNJ, bayesian_net, plain_net, randomised


def test_layers_in_order() -> None:
    checkpoint = replace(checkpoint_of(randomised(bayesian_net())), unwrapped=("model",))
    summary = inspect_checkpoint(checkpoint)
    assert [layer.name for layer in summary.layers] == ["0", "1", "3", "7", "9"]
    assert [layer.gates for layer in summary.layers] == [4, None, 6, 6, 5]
    assert summary.unwrapped == ("model",)
    first, norm = summary.layers[:2]
    assert first.shapes["weight_mu"] == (4, 1, 3, 3)
    assert (first.family, first.score, first.prior_variance) == (
        "group normal-Jeffreys",
        "log alpha",
        1.0,
    )
    assert (norm.family, norm.score_quantiles, norm.dead_share) == ("deterministic", None, None)
    assert norm.shapes["running_mean"] == (4,)
    assert summary.parameters == sum(array.size for array in checkpoint.tensors.values())
    assert summary.suggested_command == (
        "deploykit export net.pt --model FILE.py:FACTORY --input-shape 1,1,HEIGHT,WIDTH "
        "--data calibration.npz --eval-data labelled.npz --dry-run"
    )
    assert "--threshold T --out bundle" in summary.next_step


def test_quantiles_and_dead_share() -> None:
    network = LinearGNJ(5, 1)
    with torch.no_grad():
        network.z_logvar.copy_(torch.tensor([-5.0, -4.0, -3.0, -2.0, -1.0]))
    summary = inspect_checkpoint(checkpoint_of(network), threshold=-2.5)
    (layer,) = summary.layers
    assert layer.score_quantiles is not None
    assert layer.snr_quantiles is not None
    assert len(layer.score_quantiles) == len(layer.snr_quantiles) == len(QUANTILES)
    assert (layer.score_quantiles[0], layer.score_quantiles[3]) == pytest.approx((-5, -3))
    assert layer.dead_share == pytest.approx(0.4)
    assert layer.snr_quantiles[0] == 0
    assert summary.suggested_command.endswith("--threshold -2.5")


def test_traps() -> None:
    network = randomised(nn.Sequential(Conv2dGNJ(1, 3, 3), LinearGNJ(4, 2)))
    untrained = with_tensor(checkpoint_of(network), "1.z_logvar", np.full(4, -9, np.float32))
    untrained = with_tensor(untrained, "1.z_mu", np.ones(4, np.float32))
    traps = inspect_checkpoint(untrained).traps
    assert len(traps) == 3
    assert traps[0].startswith("0: the reference code's compute_posterior_params")
    assert traps[2] == "1: all gates have the same log alpha: they look untrained"


def test_deterministic_checkpoint() -> None:
    summary = inspect_checkpoint(checkpoint_of(plain_net()))
    assert {layer.family for layer in summary.layers} == {"deterministic"}
    assert summary.suggested_command.endswith("--prune-rule none")
    assert summary.traps == ()


def test_unknown_checkpoint_is_refused() -> None:
    checkpoint = with_tensor(checkpoint_of(plain_net()), "7.rho_weight", np.ones(2, np.float32))
    with pytest.raises(CheckpointError, match=r"it holds 7\.bias, 7\.rho_weight"):
        inspect_checkpoint(checkpoint)
