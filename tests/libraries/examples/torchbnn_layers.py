"""torchbnn 1.2: BayesConv2d, BayesBatchNorm2d and BayesLinear, with the library's BKLLoss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Trained, descend, imported
from tests.libraries.images import Images

PRIOR = {"prior_mu": 0, "prior_sigma": 0.1}


def bayesian() -> nn.Module:
    """Two convolutions, the first with a Bayesian batch norm, and a linear layer."""
    bnn = imported("torchbnn")
    return nn.Sequential(
        bnn.BayesConv2d(
            in_channels=1, out_channels=8, kernel_size=5, stride=2, padding=2, bias=False, **PRIOR
        ),
        bnn.BayesBatchNorm2d(num_features=8, **PRIOR),
        nn.ReLU(),
        bnn.BayesConv2d(
            in_channels=8, out_channels=16, kernel_size=3, stride=2, padding=1, groups=2, **PRIOR
        ),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        bnn.BayesLinear(in_features=144, out_features=10, **PRIOR),
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def train(images: Images) -> Trained:
    """Cross entropy plus a tenth of the mean KL, as in the library's demos."""
    network: Any = bayesian()
    kl = imported("torchbnn").BKLLoss(reduction="mean", last_layer_only=False)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = functional.cross_entropy(network(inputs), labels) + 0.1 * kl(network)
        return total

    descend(network, loss, images)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The network at its means, written out."""
    conv1, norm, _, conv2, _, _, _, linear = network
    x = functional.conv2d(x, conv1.weight_mu, stride=2, padding=2)
    scale = norm.weight_mu / torch.sqrt(norm.running_var + norm.eps)
    x = (x - norm.running_mean[:, None, None]) * scale[:, None, None]
    x = (x + norm.bias_mu[:, None, None]).relu()
    x = functional.conv2d(x, conv2.weight_mu, conv2.bias_mu, stride=2, padding=1, groups=2).relu()
    x = functional.max_pool2d(x, 2).flatten(1)
    return functional.linear(x, linear.weight_mu, linear.bias_mu)


LIBRARY = Library(
    name="torchbnn_layers",
    package="torchbnn",
    requirements=("torchbnn==1.2",),
    train=train,
    families=frozenset({"torchbnn", "torchbnn batch norm"}),
)
