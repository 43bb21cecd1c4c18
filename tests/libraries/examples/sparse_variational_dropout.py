"""Sparse variational dropout as the notebooks write it: W, log_sigma, and a bias of [1, C]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import (
    PACKAGE,
    behind_convolutions,
    drawing,
    features,
    initialised,
    kl_to_log_uniform,
    trained_with,
)
from tests.posterior.variational_dropout_layers import LinearSVDO


def bayesian() -> nn.Module:
    """Two such layers behind plain convolutions."""
    return behind_convolutions(
        LinearSVDO(144, 32, "W", "log_sigma", (1, 32)),
        LinearSVDO(32, 10, "W", "log_sigma", (1, 10)),
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return behind_convolutions(nn.Linear(144, 32), nn.Linear(32, 10))


def penalty(network: nn.Sequential) -> Tensor:
    """KL to the log-uniform prior."""
    total = torch.zeros(())
    for layer in network:
        if isinstance(layer, LinearSVDO):
            total = total + kl_to_log_uniform(layer.dropout_rate())
    return total


def train(images: Images) -> Trained:
    """Cross entropy plus the KL."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"log_sigma": -4.0, "bias": 0.0})
    trained_with(network, lambda: penalty(network), images, epochs=8)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """Every weight at its mean, those that the threshold removes too."""
    first, second, x = network[6], network[8], features(network, x)
    x = functional.linear(x, first.W, first.bias.flatten()).relu()
    return functional.linear(x, second.W, second.bias.flatten())


LIBRARY = Library(
    name="sparse_variational_dropout",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"variational dropout (W, log_sigma)"}),
)
