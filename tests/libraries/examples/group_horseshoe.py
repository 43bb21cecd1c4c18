"""Group horseshoe linear layers, one of each published version, behind plain convolutions."""

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
    trained_with,
)
from tests.posterior.gate_layers import LinearGroupHS, LinearGroupHSWithColumn

START = {
    **{f"{name}_mu": 0.0 for name in ("sa", "sb", "alpha", "beta", "bias")},
    **{f"{name}_logvar": -5.0 for name in ("sa", "sb", "alpha", "beta")},
    "weight_logvar": -8.0, "bias_logvar": -8.0, "bias": 0.0,
}  # fmt: skip
SCALE = 1e-3
"""Of the half-Cauchy prior that the layer's own scale has; the smaller, the more groups go."""


def bayesian() -> nn.Module:
    """Both layers, the second with its bias as one more input."""
    return behind_convolutions(LinearGroupHS(144, 32), LinearGroupHSWithColumn(32, 10))


def twin() -> nn.Module:
    """The same of torch layers."""
    return behind_convolutions(nn.Linear(144, 32), nn.Linear(32, 10))


def penalty(network: nn.Sequential) -> Tensor:
    """KL of scales and weights."""
    total = torch.zeros(())
    for layer in network:
        if isinstance(layer, LinearGroupHS | LinearGroupHSWithColumn):
            total = total + layer.kl(SCALE)
    return total


def train(images: Images) -> Trained:
    """Cross entropy plus the KL."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, START)
    trained_with(network, lambda: penalty(network), images, epochs=8)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """E[z] = exp(m + v / 2), m and v of half the sum of four normals; the second: exp(m + v)."""
    first, second, x = network[6], network[8], features(network, x)

    def moments(layer: nn.Module) -> tuple[Tensor, Tensor]:
        names = ("sa", "sb", "alpha", "beta")
        mean = sum(layer.get_parameter(f"{name}_mu") for name in names)
        variance = sum(layer.get_parameter(f"{name}_logvar").exp() for name in names)
        return torch.as_tensor(mean) / 2, torch.as_tensor(variance) / 4

    m, v = moments(first)
    x = functional.linear(x * torch.exp(m + v / 2), first.weight_mu, first.bias_mu).relu()
    m, v = moments(second)
    weight = second.weight_mu * torch.exp(m + v)
    return functional.linear(x, weight[:, :-1], weight[:, -1])


LIBRARY = Library(
    name="group_horseshoe",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"group horseshoe"}),
)
