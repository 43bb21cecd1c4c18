"""cplxmodule 2022.6: real layers of variational dropout, whose eval forward masks nothing."""

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
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images
from tests.libraries.restated import drawing

__all__ = ["LIBRARY", "bayesian", "train", "twin"]


def bayesian() -> nn.Module:
    """A convolution of the log-uniform prior, then convolution and linear layer of the ARD one."""
    relevance = imported("cplxmodule.nn.relevance")
    return small(
        lambda i, o, k, s, p: (relevance.Conv2dVD if i == 1 else relevance.Conv2dARD)(
            i, o, k, stride=s, padding=p
        ),
        relevance.LinearARD,
    )


def train(images: Images) -> Trained:
    """Cross entropy plus the penalties over the number of images."""
    network: Any = bayesian()
    relevance = imported("cplxmodule.nn.relevance")

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + sum(relevance.penalties(network)) / len(images.labels)
        return total

    descend(network, loss, images, rates={"log_sigma2": 0.05})
    network.eval()
    masks = relevance.compute_ard_masks(network, threshold=3.0)
    return Trained(
        network.state_dict(),
        lambda x: mean_forward(network, x, ones(masks)),
        drawing(network),
        masked=lambda x: mean_forward(network, x, masks),
    )


def ones(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks of the same names that keep every weight."""
    return {name: mask.new_ones(mask.shape) for name, mask in masks.items()}


def mean_forward(network: Any, x: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """The network at its means times the masks, written out."""
    conv1, conv2, linear = (network[place].weight * masks[f"{place}.mask"] for place in (0, 2, 6))
    return small_forward(
        x, (conv1, conv2, linear), (network[0].bias, network[2].bias, network[6].bias)
    )


LIBRARY = Library(
    name="cplxmodule_layers",
    package="cplxmodule",
    requirements=("cplxmodule==2022.6", "scipy==1.17.1"),
    train=train,
    families=frozenset({"variational dropout"}),
)
