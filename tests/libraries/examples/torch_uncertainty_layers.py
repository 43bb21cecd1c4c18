"""torch-uncertainty 0.13.0: BayesConv2d and BayesLinear, with a prior of two Gaussians.

Only layers/bayesian is imported: the package itself imports lightning, timm and torchvision.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, small
from tests.libraries.images import Images

PRIOR = {"prior_sigma_1": 0.3, "prior_sigma_2": 0.03, "prior_pi": 0.75}
NAME = "torch_uncertainty_layers_bayesian"


def layers() -> Any:
    """The library's layers/bayesian as a package of its own."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    found = importlib.util.find_spec("torch_uncertainty")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "layers" / "bayesian"
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def bayesian() -> nn.Module:
    """The small network, the first convolution with circular padding."""
    return small(
        lambda i, o, k, s, p: layers().BayesConv2d(
            i, o, k, stride=s, padding=p, padding_mode=_mode(i), **PRIOR
        ),
        lambda i, o: layers().BayesLinear(i, o, **PRIOR),
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return small(
        lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p, padding_mode=_mode(i)),
        nn.Linear,
    )


def _mode(channels: int) -> Literal["circular", "zeros"]:
    return "circular" if channels == 1 else "zeros"


def train(images: Images) -> Trained:
    """Cross entropy plus the layers' KL over the number of images."""
    network: Any = bayesian()
    parts = (network[0], network[2], network[6])

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        kl = sum(part.log_variational_posterior - part.log_prior for part in parts)
        total: Tensor = cost + kl / len(images.labels)
        return total

    descend(network, loss, images)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out; circular padding is done beforehand."""
    parts = (network[0], network[2], network[6])
    weights = (parts[0].weight_mu, parts[1].weight_mu, parts[2].weight_mu)
    biases = (parts[0].bias_mu, parts[1].bias_mu, parts[2].bias_mu)
    x = functional.pad(x, (2, 2, 2, 2), mode="circular")
    x = functional.conv2d(x, weights[0], biases[0], stride=2).relu()
    x = functional.conv2d(x, weights[1], biases[1], stride=2, padding=1).relu()
    return functional.linear(functional.max_pool2d(x, 2).flatten(1), weights[2], biases[2])


LIBRARY = Library(
    name="torch_uncertainty_layers",
    package="torch_uncertainty",
    requirements=("torch-uncertainty==0.13.0",),
    train=train,
    families=frozenset({"torch-uncertainty"}),
)
