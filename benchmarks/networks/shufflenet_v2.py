"""ShuffleNetV2 x1.0 (Ma et al. 2018, table 5), plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm

STAGES = ((116, 4), (232, 8), (464, 4))


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W]: channel i of two groups of C/2 goes to 2 i and 2 i + 1."""
    samples, channels, height, width = x.shape
    split = x.view(samples, 2, channels // 2, height, width)
    return split.transpose(1, 2).reshape(samples, channels, height, width)


class Unit(nn.Module):
    """One half of the channels passes by (stride 1), or both branches read all (stride 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.right = nn.Sequential(
            ConvNorm(inputs if stride == 2 else half, half),
            ConvNorm(half, half, 3, stride, half, None),
            ConvNorm(half, half),
        )
        if stride == 2:
            self.left = nn.Sequential(
                ConvNorm(inputs, inputs, 3, stride, inputs, None), ConvNorm(inputs, half)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H/stride, W/stride]."""
        if self.stride == 2:
            return shuffle(torch.cat([self.left(x), self.right(x)], dim=1))
        left, right = x.chunk(2, dim=1)
        return shuffle(torch.cat([left, self.right(right)], dim=1))


class ShuffleNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
        inputs = 24
        for width, depth in STAGES:
            for index in range(depth):
                layers.append(Unit(inputs, width, 1 if index else 2))
                inputs = width
        self.features = nn.Sequential(*layers, ConvNorm(inputs, 1024))
        self.classifier = nn.Linear(1024, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.classifier(self.features(x).mean([2, 3]))
        return logits


def shufflenet_v2() -> nn.Module:
    """2.3 million parameters."""
    return ShuffleNetV2()
