"""A hard-concrete gate for every weight, as moskomule's l0.pytorch wraps torch layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.libraries.frame import Library, Trained, small, small_forward, small_twin
from tests.libraries.images import Images
from tests.libraries.restated import PACKAGE, drawing, initialised, trained_with
from tests.posterior.l0_layers import L0Conv2dOfWeights, L0LinearOfWeights

PENALTY = 3.0
"""Nats for each open gate."""


def bayesian() -> nn.Module:
    """Three layers, each wrapped."""
    return small(
        lambda inputs, outputs, kernel, stride, padding: L0Conv2dOfWeights(
            inputs, outputs, kernel, stride=stride, padding=padding
        ),
        L0LinearOfWeights,
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return small_twin()


def penalty(network: nn.Sequential) -> Tensor:
    """The expected number of weights that are not zero."""
    total = torch.zeros(())
    for name, value in network.named_parameters():
        if name.endswith("loc"):
            total = total + torch.sigmoid(value + 2 / 3 * math.log(11)).sum()
    return PENALTY * total


def train(images: Images) -> Trained:
    """Cross entropy plus the expected number of weights."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"loc": 1.0, "bias": 0.0})
    trained_with(network, lambda: penalty(network), images, epochs=12)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: nn.Sequential, x: Tensor) -> Tensor:
    """Every weight times clip(1.2 sigmoid(loc) - 0.1, 0, 1)."""
    layers: list[Any] = [network[0], network[2], network[6]]
    gates = [(1.2 * torch.sigmoid(layer.loc) - 0.1).clamp(0, 1) for layer in layers]
    weights = [layer._origin.weight * z for layer, z in zip(layers, gates, strict=True)]
    biases = [layer._origin.bias for layer in layers]
    return small_forward(x, tuple(weights), tuple(biases))


LIBRARY = Library(
    name="l0_weights",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"L0 (moskomule)"}),
)
