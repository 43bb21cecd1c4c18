"""cplxmodule 2022.6, the end of its pipeline: trained, sparsified, fine-tuned under the masks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.examples.cplxmodule_layers import bayesian as relevant
from tests.libraries.frame import (
    Library,
    Spread,
    Trained,
    descend,
    imported,
    small,
    small_forward,
)
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "bayesian", "train", "twin"]


def bayesian() -> nn.Module:
    """The small network of masked layers, no mask deployed yet."""
    masked = imported("cplxmodule.nn.masked")
    return small(masked.Conv2dMasked, masked.LinearMasked)


def train(images: Images) -> Trained:
    """Two epochs of variational dropout, masks at log alpha 3, two more epochs under them."""
    dense: Any = relevant()
    relevance = imported("cplxmodule.nn.relevance")
    masked = imported("cplxmodule.nn.masked")

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(dense(inputs), labels)
        total: Tensor = cost + sum(relevance.penalties(dense)) / len(images.labels)
        return total

    descend(dense, loss, images, epochs=2, rates={"log_sigma2": 0.05})
    masks = relevance.compute_ard_masks(dense, threshold=3.0)
    state, masks = masked.binarize_masks(dense.state_dict(), masks)
    network: Any = bayesian()
    network.load_state_dict(state, strict=False)
    masked.deploy_masks(network, state_dict=masks)
    descend(network, lambda x, y: functional.cross_entropy(network(x), y), images, 2, 1e-3)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The masked network, written out."""
    conv1, conv2, linear = (network[place].weight_masked for place in (0, 2, 6))
    return small_forward(
        x, (conv1, conv2, linear), (network[0].bias, network[2].bias, network[6].bias)
    )


LIBRARY = Library(
    name="cplxmodule_masked",
    package="cplxmodule",
    requirements=("cplxmodule==2022.6", "scipy==1.17.1"),
    train=train,
    families=frozenset({"masked weights (cplxmodule)"}),
    spread=Spread.NONE,
)
