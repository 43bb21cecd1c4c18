"""What the examples of research formats share: published as code to copy, so that no library brings
them, and their layers are restated from the equations in tests/posterior.

They train a network with one gate a channel, or a posterior on every weight, and a penalty that
closes some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import descend
from tests.libraries.images import Images
from tests.posterior.gate_layers import InformationBottleneck, LinearSBP, SBPLayer

PACKAGE = "torch"
"""What every installation has."""
CHANNELS = (16, 32)
FEATURES = 288


def gated(
    conv: Callable[[int, int, int, int, int], nn.Module],
    gate: Callable[[int], nn.Module],
    linear: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """Two convolutions with a layer behind each, and a linear layer: [N, 1, 28, 28] -> [N, 10].

    conv: (in, out, kernel, stride, padding) -> layer; gate: channels -> layer, behind the ReLU;
    linear: (in, out) -> layer.
    """
    first, second = CHANNELS
    return nn.Sequential(
        conv(1, first, 5, 2, 2),
        nn.ReLU(),
        gate(first),
        conv(first, second, 3, 2, 1),
        nn.ReLU(),
        gate(second),
        nn.MaxPool2d(2),
        nn.Flatten(),
        linear(FEATURES, 10),
    )


def gated_twin() -> nn.Module:
    """`gated` of torch layers, the gates' places kept."""
    return gated(nn.Conv2d, lambda _: nn.Identity(), nn.Linear)


def gated_forward(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    biases: tuple[Tensor, Tensor, Tensor],
    gates: tuple[Tensor, Tensor],
) -> Tensor:
    """What `gated` computes with these tensors, gates [C] behind the ReLU, layer by layer."""
    x = functional.conv2d(x, weights[0], biases[0], stride=2, padding=2).relu()
    x = x * gates[0][:, None, None]
    x = functional.conv2d(x, weights[1], biases[1], stride=2, padding=1).relu()
    x = x * gates[1][:, None, None]
    return functional.linear(functional.max_pool2d(x, 2).flatten(1), weights[2], biases[2])


def behind_convolutions(first: nn.Module, second: nn.Module) -> nn.Sequential:
    """Two plain convolutions, then linear layers 144 -> 32 -> 10: [N, 1, 28, 28] -> [N, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), first, nn.ReLU(), second,
    )  # fmt: skip


def features(network: Any, x: Tensor) -> Tensor:
    """[N, 144], what the linear layers of `behind_convolutions` read, written out."""
    conv1, conv2 = network[0], network[2]
    x = functional.conv2d(x, conv1.weight, conv1.bias, stride=2, padding=2).relu()
    x = functional.conv2d(x, conv2.weight, conv2.bias, stride=2, padding=1).relu()
    return functional.max_pool2d(x, 2).flatten(1)


def kl_to_log_uniform(log_alpha: Tensor) -> Tensor:
    """Summed, of Gaussians whose variance is alpha mean^2; Molchanov et al. 2017, equation 14."""
    kept = 0.63576 * (1 - torch.sigmoid(1.87320 + 1.48695 * log_alpha))
    return (kept + 0.5 * functional.softplus(-log_alpha)).sum()


def kl_of_gates(network: nn.Sequential) -> Tensor:
    """Of all layers of log-normal gates and of bottlenecks."""
    total = torch.zeros(())
    for layer in network:
        if isinstance(layer, SBPLayer | LinearSBP | InformationBottleneck):
            total = total + layer.kl()
    return total


def initialised(network: nn.Module, start: Mapping[str, float]) -> nn.Module:
    """Weights N(0, 1 / fan in), parameters in `start` (by their last part) constant; in place.

    What `start` does not name is taken for a weight where it has two dimensions or more.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            last = name.rpartition(".")[2]
            if last in start:
                parameter.fill_(start[last])
            elif parameter.ndim >= 2:
                fan_in = (
                    parameter[0].numel()
                    if last != "weights" or parameter.ndim > 2
                    else len(parameter)
                )
                parameter.normal_(0.0, fan_in**-0.5)
    return network


def trained_with(
    network: nn.Module,
    penalty: Callable[[], Tensor],
    images: Images,
    epochs: int,
    rate: float = 5e-3,
) -> nn.Module:
    """Cross entropy plus penalty / number of images, in place; left in eval mode."""
    count = len(images.labels)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(network(inputs), labels) + penalty() / count

    network.train()
    descend(network, loss, images, epochs, rate)
    return network.eval()


def drawing(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The training forward, which draws; the network is left in eval mode."""

    def draw(x: Tensor) -> Tensor:
        network.train()
        outputs: Tensor = network(x)
        network.eval()
        return outputs

    return draw
