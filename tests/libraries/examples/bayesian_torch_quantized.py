"""bayesian-torch 0.5.0 after its own quantization: int8 means and sigmas, biases in float."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported, small, small_forward
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]


def bayesian() -> nn.Module:
    """The small network before quantization, its layers returning their output alone."""
    layers = imported("bayesian_torch.layers")
    network = small(
        lambda i, o, k, s, p: layers.Conv2dReparameterization(i, o, k, stride=s, padding=p),
        layers.LinearReparameterization,
    )
    for layer in network:
        if hasattr(layer, "dnn_to_bnn_flag"):
            setattr(layer, "dnn_to_bnn_flag", True)  # noqa: B010  mypy takes it for a tensor
    return network


def train(images: Images) -> Trained:
    """Trained in float, then prepared, calibrated on 256 images and converted."""
    network: Any = bayesian()

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        kl = sum(layer.kl_loss() for layer in (network[0], network[2], network[6]))
        total: Tensor = cost + kl / len(labels)
        return total

    descend(network, loss, images)
    quantize = imported("bayesian_torch.ao.quantization.quantize")
    network.eval()
    quantize.enable_prepare(network)
    observers: Any = torch.ao.quantization
    network.qconfig = observers.get_default_qconfig("onednn")
    prepared = observers.prepare(network)
    with torch.no_grad():
        prepared(torch.tensor(images.inputs[:256]))
    integers: Any = quantize.convert(prepared)
    return Trained(integers.state_dict(), lambda x: mean_forward(integers, x), integers)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at the means that its integers stand for, written out in float."""
    parts = (network[0], network[2], network[6])
    means = [part.quantized_mu_weight.dequantize() for part in parts]
    biases = [part.quantized_mu_bias for part in parts]
    return small_forward(x, (means[0], means[1], means[2]), (biases[0], biases[1], biases[2]))


LIBRARY = Library(
    name="bayesian_torch_quantized",
    package="bayesian_torch",
    requirements=("bayesian-torch==0.5.0",),
    train=train,
    families=frozenset({"bayesian-torch quantized"}),
    factory="twin",
)
