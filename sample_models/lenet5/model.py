"""LeNet-5 with 20 and 50 channels, Bayesian and deterministic, under the same layer names."""

import torch
from group_normal_jeffreys import Conv2dGroupNJ, LinearGroupNJ
from torch import Tensor, nn
from torch.nn import functional


class LeNet5(nn.Module):
    """LeNet-5 over whichever layers it is given.

    input  [N, 1, 28, 28]
    conv1  [N, 20, 24, 24], relu, 2x2 max pool -> [N, 20, 12, 12]
    conv2  [N, 50, 8, 8],   relu, 2x2 max pool -> [N, 50, 4, 4] -> [N, 800]
    fc1    [N, 500], relu
    fc2    [N, 10], the logits
    Source: LeCun et al. 1998 in the widths of Caffe's example, as in Louizos et al. 2017.
    """

    def __init__(
        self, *, conv1: nn.Module, conv2: nn.Module, fc1: nn.Module, fc2: nn.Module
    ) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2
        self.fc1 = fc1
        self.fc2 = fc2

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc2(x)
        return logits


def bayesian_lenet5() -> LeNet5:
    """LeNet-5 with a group normal-Jeffreys posterior on every layer."""
    return LeNet5(
        conv1=Conv2dGroupNJ(1, 20, 5),
        conv2=Conv2dGroupNJ(20, 50, 5),
        fc1=LinearGroupNJ(800, 500),
        fc2=LinearGroupNJ(500, 10),
    )


def lenet5() -> LeNet5:
    """The deterministic twin: 431,080 weights and biases."""
    return LeNet5(
        conv1=nn.Conv2d(1, 20, 5),
        conv2=nn.Conv2d(20, 50, 5),
        fc1=nn.Linear(800, 500),
        fc2=nn.Linear(500, 10),
    )
