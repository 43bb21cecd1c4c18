"""L0 gates as layers of their own, behind torch convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.libraries.examples.l0_amlab import expected_open
from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import (
    PACKAGE,
    drawing,
    gated,
    gated_forward,
    gated_twin,
    initialised,
    trained_with,
)
from tests.posterior.l0_layers import L0Gate, hard_concrete

PENALTY = 400.0
"""Nats for each open gate."""


def bayesian() -> nn.Module:
    """Gates behind both ReLUs."""
    return gated(nn.Conv2d, L0Gate, nn.Linear)


def twin() -> nn.Module:
    """The same without gates."""
    return gated_twin()


def penalty(network: nn.Module) -> Tensor:
    """Of both layers of gates."""
    first, second = (network.get_parameter(f"{place}.qz_loga") for place in (2, 5))
    return PENALTY * expected_open(torch.cat((first, second)))


def train(images: Images) -> Trained:
    """Cross entropy plus the expected number of open gates."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"qz_loga": 1.0, "bias": 0.0})
    trained_with(network, lambda: penalty(network), images, epochs=12)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """Each gate at clip(1.2 sigmoid(a) - 0.1, 0, 1)."""
    layers = (network[0], network[3], network[8])
    first, second = (hard_concrete(network[place].qz_loga, False) for place in (2, 5))
    weights, biases = ([getattr(one, name) for one in layers] for name in ("weight", "bias"))
    return gated_forward(x, tuple(weights), tuple(biases), (first, second))


LIBRARY = Library(
    name="l0_gates",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"L0 gate layer"}),
)
