"""pytorch-ard 0.2.4: Conv2dARD, which has no bias, and LinearARD, with the library's ELBOLoss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import (
    Library,
    Trained,
    descend,
    imported,
    small,
    small_forward,
)
from tests.libraries.images import Images
from tests.libraries.restated import drawing


def bayesian() -> nn.Module:
    """The small network."""
    ard = imported("torch_ard")
    return small(ard.Conv2dARD, ard.LinearARD)


def twin() -> nn.Module:
    """The same of torch layers."""
    return small(lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p, bias=False), nn.Linear)


def train(images: Images) -> Trained:
    """Cross entropy plus the KL over the number of images."""
    network: Any = bayesian()
    elbo = imported("torch_ard").ELBOLoss(network, functional.cross_entropy)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = elbo(network(inputs), labels, 1, 1 / len(images.labels))
        return total

    descend(network, loss, images, rates={"log_sigma2": 0.05})
    network.eval()
    return Trained(
        network.state_dict(),
        lambda x: mean_forward(network, x),
        drawing(network),
        masked=network,
    )


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, dropped weights included, which the library's eval leaves out."""
    conv1, conv2, linear = network[0], network[2], network[6]
    zeros = (conv1.weight.new_zeros(8), conv2.weight.new_zeros(16))
    weights = (conv1.weight, conv2.weight, linear.weight)
    return small_forward(x, weights, (zeros[0], zeros[1], linear.bias))


LIBRARY = Library(
    name="pytorch_ard_layers",
    package="torch_ard",
    requirements=("pytorch_ard==0.2.4",),
    train=train,
    families=frozenset({"variational dropout"}),
)
