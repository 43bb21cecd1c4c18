"""ResNeXt-50 32x4d (Xie et al. 2017, table 1), plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm
from networks.resnet import EXPANSION, ResNet, shortcut

GROUPS = 32


class Block(nn.Module):
    """1x1, 3x3 in 32 groups (which strides), 1x1 and a shortcut around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        inner = 2 * width
        self.body = nn.Sequential(
            ConvNorm(inputs, inner),
            ConvNorm(inner, inner, 3, stride, groups=GROUPS),
            ConvNorm(inner, width * EXPANSION, activation=None),
        )
        self.shortcut = shortcut(inputs, width * EXPANSION, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, 4 width, H/stride, W/stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnext50() -> nn.Module:
    """25.0 million parameters."""
    return ResNet(Block, (3, 4, 6, 3), EXPANSION)
