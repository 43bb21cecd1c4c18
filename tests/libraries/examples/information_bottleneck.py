"""VIBNet: a bottleneck behind every ReLU, before the pooling."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.libraries.frame import Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import (
    PACKAGE,
    drawing,
    gated,
    gated_forward,
    gated_twin,
    initialised,
    kl_of_gates,
    trained_with,
)
from tests.posterior.gate_layers import InformationBottleneck

KL_WEIGHT = 60.0


def bayesian() -> nn.Module:
    """Bottlenecks behind both ReLUs."""
    return gated(nn.Conv2d, InformationBottleneck, nn.Linear)


def twin() -> nn.Module:
    """The same without bottlenecks."""
    return gated_twin()


def train(images: Images) -> Trained:
    """Cross entropy plus the information; saved as the authors' script saves."""
    network = bayesian()
    assert isinstance(network, nn.Sequential)
    initialised(network, {"post_z_mu": 1.0, "post_z_logD": -4.0, "prior_z_logD": 0.0, "bias": 0.0})
    trained_with(network, lambda: KL_WEIGHT * kl_of_gates(network), images, epochs=8)
    state = {"epoch": 8, "state_dict": network.state_dict(), "prec1": 0.0}
    return Trained(state, lambda x: mean_forward(network, x), drawing(network))


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """Every gate at its mean, those that the threshold closes too."""
    layers = (network[0], network[3], network[8])
    weights, biases = ([getattr(one, name) for one in layers] for name in ("weight", "bias"))
    gates = (network[2].post_z_mu, network[5].post_z_mu)
    return gated_forward(x, tuple(weights), tuple(biases), gates)


LIBRARY = Library(
    name="information_bottleneck",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"variational information bottleneck"}),
)
