"""A small convolutional network, built of whichever layers it is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = ("conv1", "conv2", "conv3")
"""Layers whose output channels can go."""


class Network(nn.Module):
    """Three convolutions and a linear layer: 17,114 weights and biases.

    input  [N, 1, 28, 28]
    conv1  [N, 16, 14, 14], relu
    conv2  [N, 32, 7, 7], relu
    conv3  [N, 32, 7, 7], relu, 2x2 max pool -> [N, 32, 3, 3] -> [N, 288]
    fc     [N, 10], the logits
    Convolutions have no bias, since pytorch_ard's cannot have one: a channel of zeros is zero.
    """

    def __init__(
        self, *, conv1: nn.Module, conv2: nn.Module, conv3: nn.Module, fc: nn.Module
    ) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2
        self.conv3 = conv3
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        x = functional.max_pool2d(functional.relu(self.conv3(x)), 2)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def built(
    conv: Callable[[int, int, int, int, int], nn.Module],
    linear: Callable[[int, int], nn.Module],
) -> Network:
    """conv: (in, out, kernel, stride, padding) -> layer, no bias; linear: (in, out) -> layer."""
    return Network(
        conv1=conv(1, 16, 5, 2, 2),
        conv2=conv(16, 32, 3, 2, 1),
        conv3=conv(32, 32, 3, 1, 1),
        fc=linear(288, 10),
    )


def network() -> Network:
    """Of torch's layers: what `deploykit export --model` takes, for every checkpoint here."""
    return built(lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p, bias=False), nn.Linear)
