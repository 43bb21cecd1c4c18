"""Group normal-Jeffreys gates on convolutions and a linear layer, as in "Bayesian Compression"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import (
    PACKAGE,
    drawing,
    gated,
    gated_twin,
    initialised,
    kl_to_log_uniform,
    trained_with,
)
from tests.posterior.gnj_layers import Conv2dGNJ, LinearGNJ

START = {
    "z_mu": 1.0, "z_logvar": -3.0, "weight_logvar": -8.0, "bias_mu": 0.0, "bias_logvar": -8.0
}  # fmt: skip
KL_WEIGHT = 1.0


def bayesian() -> nn.Module:
    """Every layer's posterior has gates."""
    return gated(Conv2dGNJ, lambda _: nn.Identity(), LinearGNJ)


def twin() -> nn.Module:
    """The same of torch layers."""
    return gated_twin()


def penalty(network: nn.Sequential) -> Tensor:
    """KL of gates to the log-uniform prior and of weights to N(0, 1)."""
    total = torch.zeros(())
    for layer in network:
        if isinstance(layer, Conv2dGNJ | LinearGNJ):
            log_alpha = layer.z_logvar - torch.log(layer.z_mu.square() + 1e-8)
            total = total + kl_to_log_uniform(log_alpha)
            for mean, logvar in (
                (layer.weight_mu, layer.weight_logvar),
                (layer.bias_mu, layer.bias_logvar),
            ):
                total = total + 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum()
    return KL_WEIGHT * total


def train(images: Images) -> Trained:
    """Cross entropy plus the KL, every variable drawn by local reparametrisation."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, START)
    trained_with(network, lambda: penalty(network), images, epochs=12)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out: z (x * w + b), and (x z) w^T + b."""
    conv1, conv2, linear = network[0], network[3], network[8]
    for layer, padding in ((conv1, 2), (conv2, 1)):
        x = functional.conv2d(x, layer.weight_mu, layer.bias_mu, stride=2, padding=padding)
        x = (x * layer.z_mu[:, None, None]).relu()
    x = functional.max_pool2d(x, 2).flatten(1)
    return functional.linear(x * linear.z_mu, linear.weight_mu, linear.bias_mu)


LIBRARY = Library(
    name="group_normal_jeffreys",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"group normal-Jeffreys"}),
)
