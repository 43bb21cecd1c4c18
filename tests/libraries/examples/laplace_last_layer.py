"""laplace-torch 0.3: a diagonal fit to the last layer, saved beside the network's weights."""

from __future__ import annotations

from torch import Tensor

from tests.libraries.examples.laplace_all_weights import REQUIREMENTS, fitted, trained
from tests.libraries.frame import Library, Trained, small_mean
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]

BATCH = 8
"""The state_dict of such a fit keeps the first batch of the training data."""


def train(images: Images) -> Trained:
    """Weights first, then the fit, whose state_dict has no other layer's weights."""
    network = trained(images)
    fit = fitted(network, images, "last_layer", BATCH)
    conv1, bias1, conv2, bias2, *_ = network.parameters()

    def under(x: Tensor, vector: Tensor) -> Tensor:
        weight, bias = vector[:1440].reshape(10, 144), vector[1440:]
        return small_mean(x, (conv1, bias1, conv2, bias2, weight, bias))

    state = {"model": network.state_dict(), "laplace": fit.state_dict()}
    return Trained(state, lambda x: under(x, fit.mean), lambda x: under(x, fit.sample(1)[0]))


LIBRARY = Library(
    name="laplace_last_layer",
    package="laplace",
    requirements=REQUIREMENTS,
    train=train,
    families=frozenset({"Laplace"}),
    factory="twin",
)
