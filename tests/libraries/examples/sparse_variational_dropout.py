"""Sparse variational dropout as the notebooks write it: W, log_sigma, and a bias of [1, C]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import PACKAGE, drawing, initialised, trained_with
from tests.posterior.variational_dropout_layers import LinearSVDO


def _network(first: nn.Module, second: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), first, nn.ReLU(), second,
    )  # fmt: skip


def bayesian() -> nn.Module:
    """Two such layers behind plain convolutions."""
    return _network(
        LinearSVDO(144, 32, "W", "log_sigma", (1, 32)),
        LinearSVDO(32, 10, "W", "log_sigma", (1, 10)),
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return _network(nn.Linear(144, 32), nn.Linear(32, 10))


def penalty(network: nn.Sequential) -> Tensor:
    """KL to the log-uniform prior; Molchanov et al. 2017, equation 14."""
    total = torch.zeros(())
    for layer in network:
        if isinstance(layer, LinearSVDO):
            log_alpha = layer.dropout_rate()
            kept = 0.63576 * (1 - torch.sigmoid(1.87320 + 1.48695 * log_alpha))
            total = total + (kept + 0.5 * functional.softplus(-log_alpha)).sum()
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
    conv1, conv2, first, second = network[0], network[2], network[6], network[8]
    x = functional.conv2d(x, conv1.weight, conv1.bias, stride=2, padding=2).relu()
    x = functional.conv2d(x, conv2.weight, conv2.bias, stride=2, padding=1).relu()
    x = functional.max_pool2d(x, 2).flatten(1)
    x = functional.linear(x, first.W, first.bias.flatten()).relu()
    return functional.linear(x, second.W, second.bias.flatten())


LIBRARY = Library(
    name="sparse_variational_dropout",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"variational dropout (W, log_sigma)"}),
)
