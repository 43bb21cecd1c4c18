"""blitz-bayesian-pytorch 0.2.8, after .double().float(): only the samplers' tensors are trained."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported, small, small_forward
from tests.libraries.images import Images


def bayesian() -> nn.Module:
    """The small network; its linear layer has no bias, and saves one."""
    modules = imported("blitz.modules")
    return small(
        lambda i, o, k, s, p: modules.BayesianConv2d(i, o, (k, k), stride=s, padding=p, bias=i > 1),
        lambda i, o: modules.BayesianLinear(i, o, bias=False),
    )


def twin() -> nn.Module:
    """The same of torch layers; the first convolution's missing bias is a buffer of zeros."""
    return small(
        lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p, bias=i > 1),
        lambda i, o: nn.Linear(i, o, bias=False),
    )


def train(images: Images) -> Trained:
    """Converted first, as moving to a GPU would; then the library's KL, scaled to the data."""
    network: Any = bayesian().double().float()
    kl = imported("blitz.losses").kl_divergence_from_nn

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + kl(network) / len(images.labels)
        return total

    descend(network, loss, images)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out with the tensors that the samplers read."""
    conv1, conv2, linear = network[0], network[2], network[6]
    weights = (conv1.weight_sampler.mu, conv2.weight_sampler.mu, linear.weight_sampler.mu)
    zeros = (conv1.bias_zero, linear.weight_sampler.mu.new_zeros(10))
    return small_forward(x, weights, (zeros[0], conv2.bias_sampler.mu, zeros[1]))


LIBRARY = Library(
    name="blitz_layers",
    package="blitz",
    requirements=("blitz-bayesian-pytorch==0.2.8",),
    train=train,
    families=frozenset({"blitz"}),
)
