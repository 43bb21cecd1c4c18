"""The libraries that train the network, each with its own layers and its own divergence.

No library is imported before it is asked for, and none is needed to export what it left.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from model import Network, built, network
from torch import Tensor, nn
from torch.nn import functional

BATCH = 128
"""Images in a batch."""
TRAINING_IMAGES = 55_000


class LibraryError(Exception):
    """A library is not installed."""


@dataclass(frozen=True)
class Library:
    """What the sample asks of a library.

    package: what is imported. requirement: pinned, for pip.
    build: the network, untrained. divergence: of a network, a scalar, scaled as the library scales
    it; kl_weight: its factor beside a batch's mean cross-entropy, as the library's users set it.
    weight, deviation: mean and deviation of a layer's weight; bias: the mean of its bias.
    left_out: True in the weight's shape where the library's own evaluation takes a weight for
    zero; None where its evaluation draws every weight.
    """

    package: str
    requirement: str
    build: Callable[[], Network]
    divergence: Callable[[nn.Module], Tensor]
    kl_weight: float
    weight: Callable[[Any], Tensor]
    deviation: Callable[[Any], Tensor]
    bias: Callable[[Any], Tensor]
    left_out: Callable[[Any], Tensor] | None = None

    def require(self) -> None:
        """Raises LibraryError where the library is not installed."""
        if importlib.util.find_spec(self.package) is None:
            raise LibraryError(
                f"{self.package} is not installed: `pip install --no-deps {self.requirement}` "
                "brings it; of what it depends on, training needs torch and numpy alone."
            )

    def mean(self, trained: Network) -> Network:
        """The network of torch's layers with every parameter at its mean."""
        weights = {f"{name}.weight": self.weight(layer) for name, layer in trained.named_children()}
        plain = network()
        plain.load_state_dict(weights | {"fc.bias": self.bias(trained.fc)})
        return plain

    def evaluated(self, trained: Network) -> Network:
        """The same with zeros where the library's evaluation has them."""
        plain = self.mean(trained)
        if self.left_out is not None:
            with torch.no_grad():
                for name, layer in trained.named_children():
                    plain.get_parameter(f"{name}.weight")[self.left_out(layer)] = 0.0
        return plain


BAYESIAN_TORCH_PRIOR = {
    "prior_mu": 0.0,
    "prior_sigma": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -3.0,
    "type": "Reparameterization",
    "moped_enable": False,
    "moped_delta": 0.5,
}
"""As in the library's README."""


def _build_bayesian_torch() -> Network:
    """The plain network, converted as the library's README does it."""
    converted = network()
    module = importlib.import_module("bayesian_torch.models.dnn_to_bnn")
    module.dnn_to_bnn(converted, BAYESIAN_TORCH_PRIOR)
    return converted


def _bayesian_torch_divergence(trained: nn.Module) -> Tensor:
    """The mean over each tensor's elements, summed over tensors."""
    module = importlib.import_module("bayesian_torch.models.dnn_to_bnn")
    divergence: Tensor = module.get_kl_loss(trained)
    return divergence


def _bayesian_torch_weight(layer: Any) -> Tensor:
    weight: Tensor = layer.mu_kernel if hasattr(layer, "mu_kernel") else layer.mu_weight
    return weight


def _bayesian_torch_deviation(layer: Any) -> Tensor:
    return functional.softplus(
        layer.rho_kernel if hasattr(layer, "rho_kernel") else layer.rho_weight
    )


TORCHBNN_PRIOR = {"prior_mu": 0, "prior_sigma": 0.1}
"""As in the library's demos."""


def _build_torchbnn() -> Network:
    layers = importlib.import_module("torchbnn")

    def conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Module:
        layer: nn.Module = layers.BayesConv2d(
            in_channels=inputs,
            out_channels=outputs,
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            bias=False,
            **TORCHBNN_PRIOR,
        )
        return layer

    def linear(inputs: int, outputs: int) -> nn.Module:
        layer: nn.Module = layers.BayesLinear(
            in_features=inputs, out_features=outputs, **TORCHBNN_PRIOR
        )
        return layer

    return built(conv, linear)


def _torchbnn_divergence(trained: nn.Module) -> Tensor:
    """The mean over all weights and biases."""
    module = importlib.import_module("torchbnn")
    divergence: Tensor = module.BKLLoss(reduction="mean", last_layer_only=False)(trained)
    return divergence.squeeze()


def _build_pytorch_ard() -> Network:
    layers = importlib.import_module("torch_ard")
    return built(layers.Conv2dARD, layers.LinearARD)


def _pytorch_ard_divergence(trained: nn.Module) -> Tensor:
    """The sum over all weights, in nats."""
    divergence: Tensor = importlib.import_module("torch_ard").get_ard_reg(trained)
    return divergence


LIBRARIES = {
    "bayesian-torch": Library(
        package="bayesian_torch",
        requirement="bayesian-torch==0.5.0",
        build=_build_bayesian_torch,
        divergence=_bayesian_torch_divergence,
        kl_weight=1 / BATCH,
        weight=_bayesian_torch_weight,
        deviation=_bayesian_torch_deviation,
        bias=lambda layer: layer.mu_bias,
    ),
    "torchbnn": Library(
        package="torchbnn",
        requirement="torchbnn==1.2",
        build=_build_torchbnn,
        divergence=_torchbnn_divergence,
        kl_weight=0.1,
        weight=lambda layer: layer.weight_mu,
        deviation=lambda layer: layer.weight_log_sigma.exp(),
        bias=lambda layer: layer.bias_mu,
    ),
    "pytorch-ard": Library(
        package="torch_ard",
        requirement="pytorch_ard==0.2.4",
        build=_build_pytorch_ard,
        divergence=_pytorch_ard_divergence,
        kl_weight=1 / TRAINING_IMAGES,
        weight=lambda layer: layer.weight,
        deviation=lambda layer: (layer.log_sigma2 / 2).exp(),
        bias=lambda layer: layer.bias,
        left_out=lambda layer: layer.get_clip_mask(),
    ),
}
