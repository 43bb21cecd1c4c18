"""cplxmodule 2022.6: LinearL0 with gates of inputs, of outputs and of every weight."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported
from tests.libraries.images import Images
from tests.libraries.restated import drawing

GROUPS = ("input", "output", None)
SIZES = ((196, 32), (32, 16), (16, 10))


def _network(layers: list[nn.Module]) -> nn.Module:
    first, second, third = layers
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), third)


def bayesian() -> nn.Module:
    """A perceptron on pixels averaged two by two."""
    extensions = imported("cplxmodule.nn.relevance")
    return _network(
        [extensions.LinearL0(*size, group=group) for size, group in zip(SIZES, GROUPS, strict=True)]
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return _network([nn.Linear(*size) for size in SIZES])


def train(images: Images) -> Trained:
    """Cross entropy plus the expected number of open gates over the number of images."""
    network: Any = bayesian()
    relevance = imported("cplxmodule.nn.relevance")

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + 10 * sum(relevance.penalties(network)) / len(images.labels)
        return total

    descend(network, loss, images, rates={"log_alpha": 0.05})
    network.eval()
    return Trained(
        network.state_dict(),
        lambda x: mean_forward(network, x),
        drawing(network),
        masked=network,
    )


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network under its evaluated gates, by layer: before the weight, behind it, inside it."""
    before, behind, inside = network[2], network[4], network[6]
    x = functional.avg_pool2d(x, 2).flatten(1)
    x = functional.linear(x * gate(before)[0], before.weight, before.bias).relu()
    x = (functional.linear(x, behind.weight) * gate(behind)[:, 0] + behind.bias).relu()
    return functional.linear(x, inside.weight * gate(inside), inside.bias)


def gate(layer: Any) -> Tensor:
    """min(1, max(0, 1.2 sigmoid(-log alpha) - 0.1))."""
    open_: Tensor = 1.2 * (-layer.log_alpha).sigmoid() - 0.1
    return open_.clamp(0, 1)


LIBRARY = Library(
    name="cplxmodule_l0",
    package="cplxmodule",
    requirements=("cplxmodule==2022.6", "scipy==1.17.1"),
    train=train,
    families=frozenset({"L0 (cplxmodule)"}),
)
