"""ivon-opt 0.1.3: a plain network; the posterior is in the optimizer's state, saved beside it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from tests.libraries.frame import Library, Trained, batches, imported, small_mean, small_twin
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]

EPOCHS = 4


def train(images: Images) -> Trained:
    """The loop of the library's README: gradients at one draw, then a step."""
    network = small_twin()
    optimizer: Any = imported("ivon").IVON(
        network.parameters(), lr=0.1, ess=len(images.labels), hess_init=0.1
    )
    for inputs, labels in batches(images, EPOCHS):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def draw(x: Tensor) -> Tensor:
        with optimizer.sampled_params():
            output: Tensor = network(x)
        return output

    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    return Trained(state, lambda x: small_mean(x, list(network.parameters())), draw)


LIBRARY = Library(
    name="ivon_optimizer",
    package="ivon",
    requirements=("ivon-opt==0.1.3",),
    train=train,
    families=frozenset({"IVON"}),
    factory="twin",
)
