"""laplace-torch 0.3: a diagonal fit to all weights of a trained network; its state_dict alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import BATCH, Library, Trained, descend, imported, small_mean, small_twin
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "REQUIREMENTS", "fitted", "train", "trained", "twin"]

REQUIREMENTS = (
    "laplace-torch==0.3",
    "asdfghjkl==0.1a4",
    "backpack-for-pytorch==1.7.1",
    "curvlinops-for-pytorch==3.0.1",
    "einconv==0.1.0",
    "einops==0.8.2",
    "lightning-utilities==0.15.3",
    "linear-operator==0.6.1",
    "opt-einsum==3.4.0",
    "scipy==1.17.1",
    "torchmetrics==1.9.0",
    "unfoldNd==0.2.3",
)


def trained(images: Images) -> nn.Module:
    """The small network at its most probable weights, ready for a fit."""
    network = small_twin()
    descend(network, lambda x, y: functional.cross_entropy(network(x), y), images)
    return network.eval()


def fitted(network: nn.Module, images: Images, subset: str, batch: int) -> Any:
    """A diagonal fit whose prior precision maximises the marginal likelihood.

    By BackPACK's diagonal; the default backend takes minutes for what this does in seconds.
    """
    data = torch.utils.data.TensorDataset(torch.tensor(images.inputs), torch.tensor(images.labels))
    fit: Any = imported("laplace").Laplace(
        network,
        "classification",
        subset_of_weights=subset,
        hessian_structure="diag",
        backend=imported("laplace.curvature").BackPackGGN,
    )
    fit.fit(torch.utils.data.DataLoader(data, batch_size=batch))
    fit.optimize_prior_precision(method="marglik")
    return fit


def train(images: Images) -> Trained:
    """Weights first, then the fit."""
    network = trained(images)
    fit = fitted(network, images, "all", BATCH)

    def mean(x: Tensor) -> Tensor:
        sizes = [parameter.numel() for parameter in network.parameters()]
        parts = zip(fit.mean.split(sizes), network.parameters(), strict=True)
        return small_mean(x, [part.reshape(own.shape) for part, own in parts])

    return Trained(fit.state_dict(), mean, lambda x: draw(network, fit, x))


def draw(network: nn.Module, fit: Any, x: Tensor) -> Tensor:
    """The network under one sample of all its weights."""
    kept = nn.utils.parameters_to_vector(network.parameters())
    (sample,) = fit.sample(1)
    nn.utils.vector_to_parameters(sample, network.parameters())
    output: Tensor = network(x)
    nn.utils.vector_to_parameters(kept, network.parameters())
    return output


LIBRARY = Library(
    name="laplace_all_weights",
    package="laplace",
    requirements=REQUIREMENTS,
    train=train,
    families=frozenset({"Laplace"}),
    factory="twin",
)
