"""ResNet-18 and ResNet-50 (He et al. 2016, table 1), plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from networks.blocks import ConvNorm

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(inputs, width, 3, stride), ConvNorm(width, width, 3, activation=None)
        )
        self.shortcut = shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, width, H/stride, W/stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides, as in the common v1.5), 1x1 and a shortcut around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(inputs, width),
            ConvNorm(width, width, 3, stride),
            ConvNorm(width, width * EXPANSION, activation=None),
        )
        self.shortcut = shortcut(inputs, width * EXPANSION, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, 4 width, H/stride, W/stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where sizes allow it, else a 1x1 convolution."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return ConvNorm(inputs, outputs, 1, stride, activation=None)


class ResNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        depths: Sequence[int],
        expansion: int,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, WIDTHS[0], 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        inputs = WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not index else 1))
                inputs = width * expansion
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return logits


def resnet18() -> nn.Module:
    """11.7 million parameters."""
    return ResNet(Basic, (2, 2, 2, 2), 1)


def resnet50() -> nn.Module:
    """25.6 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), EXPANSION)
