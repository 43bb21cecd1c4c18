"""Structured Bayesian pruning: log-normal gates in a linear layer and as layers of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import (
    PACKAGE,
    drawing,
    gated,
    gated_forward,
    gated_twin,
    initialised,
    kl_of_gates,
    trained_with,
)
from tests.posterior.gate_layers import LinearSBP, SBPLayer

KL_WEIGHT = 60.0


def bayesian() -> nn.Module:
    """Gates behind both ReLUs and on the classes."""
    return gated(nn.Conv2d, SBPLayer, LinearSBP)


def twin() -> nn.Module:
    """The same without gates."""
    return gated_twin()


def train(images: Images) -> Trained:
    """Cross entropy plus the KL."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"mu": -0.1, "log_sigma": -2.0, "bias": 0.0})
    trained_with(network, lambda: KL_WEIGHT * kl_of_gates(network), images, epochs=8)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def moments(layer: SBPLayer | LinearSBP) -> Tensor:
    """E[theta] of exp of a normal cut to [-20, 0], in double, by log of the normal distribution."""
    mu, sigma = layer.mu.double(), layer.log_sigma.double().exp()
    alpha, beta = (-20 - mu) / sigma, -mu / sigma

    def log_between(low: Tensor, high: Tensor) -> Tensor:
        flip = low > 0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        above: Tensor = torch.special.log_ndtr(high)
        below: Tensor = torch.special.log_ndtr(low)
        return above + torch.log1p(-torch.exp(below - above))

    logarithm = mu + sigma**2 / 2 + log_between(alpha - sigma, beta - sigma)
    return torch.exp(logarithm - log_between(alpha, beta)).float()


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """Every gate at its mean, those of little signal too."""
    conv1, conv2, linear = network[0], network[3], network[8]
    classes = moments(linear)
    return gated_forward(
        x,
        (conv1.weight, conv2.weight, linear.weight * classes[:, None]),
        (conv1.bias, conv2.bias, linear.bias * classes),
        (moments(network[2]), moments(network[5])),
    )


LIBRARY = Library(
    name="structured_bayesian_pruning",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"structured Bayesian pruning", "structured Bayesian pruning, gate layer"}),
)
