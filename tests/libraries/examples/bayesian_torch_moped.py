"""bayesian-torch 0.5.0, dnn_to_bnn with MOPED: a trained plain network becomes Bayesian."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported
from tests.libraries.images import Images

SETTINGS = {
    "prior_mu": 0.0,
    "prior_sigma": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -3.0,
    "type": "Reparameterization",
    "moped_delta": 0.1,
}


def twin() -> nn.Module:
    """A plain network with batch norm and without one bias; dnn_to_bnn starts from it."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def bayesian() -> nn.Module:
    """The same, converted."""
    return _converted(twin(), moped=False)


def _converted(network: nn.Module, moped: bool) -> nn.Module:
    convert = imported("bayesian_torch.models.dnn_to_bnn").dnn_to_bnn
    convert(network, SETTINGS | {"moped_enable": moped})
    return network


def train(images: Images) -> Trained:
    """Two epochs plain, then converted with sigma = 0.1 |weight|, then two epochs with the KL."""
    plain = twin()
    descend(plain, lambda x, y: functional.cross_entropy(plain(x), y), images, epochs=2)
    network: Any = _converted(plain, moped=True)
    kl = imported("bayesian_torch.models.dnn_to_bnn").get_kl_loss

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + kl(network) / len(labels)
        return total

    descend(network, loss, images, epochs=2, rate=1e-3)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out; the batch norm is torch's own."""
    conv1, norm, _, conv2, _, _, _, linear = network
    x = norm(functional.conv2d(x, conv1.mu_kernel, stride=2, padding=2)).relu()
    x = functional.conv2d(x, conv2.mu_kernel, conv2.mu_bias, stride=2, padding=1).relu()
    x = functional.max_pool2d(x, 2).flatten(1)
    return functional.linear(x, linear.mu_weight, linear.mu_bias)


LIBRARY = Library(
    name="bayesian_torch_moped",
    package="bayesian_torch",
    requirements=("bayesian-torch==0.5.0",),
    train=train,
    families=frozenset({"bayesian-torch convolution", "bayesian-torch linear"}),
)
