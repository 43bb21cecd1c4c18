"""bayesian-torch 0.5.0, layers used directly: each returns its output and its KL."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported, small_forward
from tests.libraries.images import Images


class Network(nn.Module):
    """Unpacks (output, KL) of every layer, as the library's own models do; returns the output.

    layers: conv1, conv2 and fc, of the library or of torch.
    """

    def __init__(self, conv1: nn.Module, conv2: nn.Module, fc: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = conv1, conv2, fc
        self.kl: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x, first = self.conv1(x)
        x, second = self.conv2(x.relu())
        x, third = self.fc(functional.max_pool2d(x.relu(), 2).flatten(1))
        self.kl = first + second + third
        return x


class Twin(nn.Module):
    """The same of torch layers, which return their output alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()).relu()
        output: Tensor = self.fc(functional.max_pool2d(x, 2).flatten(1))
        return output


def bayesian() -> nn.Module:
    """A reparameterized and a Flipout convolution, a Flipout linear layer."""
    layers = imported("bayesian_torch.layers")
    return Network(
        layers.Conv2dReparameterization(1, 8, 5, stride=2, padding=2),
        layers.Conv2dFlipout(8, 16, 3, stride=2, padding=1),
        layers.LinearFlipout(144, 10),
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return Twin()


def train(images: Images) -> Trained:
    """Cross entropy plus KL over the number of images in a batch, as in the library's README."""
    network: Any = bayesian()

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + network.kl / len(labels)
        return total

    descend(network, loss, images)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out."""
    convs, fc = (network.conv1, network.conv2), network.fc
    weights = (convs[0].mu_kernel, convs[1].mu_kernel, fc.mu_weight)
    return small_forward(x, weights, (convs[0].mu_bias, convs[1].mu_bias, fc.mu_bias))


LIBRARY = Library(
    name="bayesian_torch_layers",
    package="bayesian_torch",
    requirements=("bayesian-torch==0.5.0",),
    train=train,
    families=frozenset({"bayesian-torch convolution", "bayesian-torch linear"}),
)
