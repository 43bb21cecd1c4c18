"""PyTorch-BayesianCNN: Bayes by backprop, W_mu and W_rho; forwards draw in eval mode too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, small, small_forward, small_twin
from tests.libraries.images import Images
from tests.libraries.restated import PACKAGE, initialised, trained_with
from tests.posterior.mean_field_layers import BBBConv2d, BBBLinear

KL_WEIGHT = 0.1
PRIOR = 0.1
"""Standard deviation of the prior, as in the published configuration."""


class Strided(BBBConv2d):
    """With a stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(inputs, outputs, kernel, padding)
        self.stride = stride


def bayesian() -> nn.Module:
    """Three Bayesian layers."""
    return small(Strided, BBBLinear)


def twin() -> nn.Module:
    """The same of torch layers."""
    return small_twin()


def penalty(network: nn.Sequential) -> Tensor:
    """KL to N(0, PRIOR^2)."""
    total = torch.zeros(())
    for name, rho in network.named_parameters():
        if name.endswith("_rho"):
            mean = network.get_parameter(name.removesuffix("_rho") + "_mu")
            ratio = functional.softplus(rho) / PRIOR
            kl = 0.5 * (ratio**2 + (mean / PRIOR) ** 2 - 1) - ratio.log()
            total = total + kl.sum()
    return KL_WEIGHT * total


def train(images: Images) -> Trained:
    """Cross entropy plus a tenth of the KL."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"W_rho": -4.0, "bias_mu": 0.0, "bias_rho": -4.0})
    trained_with(network, lambda: penalty(network), images, epochs=6)
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: nn.Sequential, x: Tensor) -> Tensor:
    """The network at its means."""
    layers: list[Any] = [network[0], network[2], network[6]]
    weights, biases = [one.W_mu for one in layers], [one.bias_mu for one in layers]
    return small_forward(x, tuple(weights), tuple(biases))


LIBRARY = Library(
    name="bayesian_cnn",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"PyTorch-BayesianCNN"}),
)
