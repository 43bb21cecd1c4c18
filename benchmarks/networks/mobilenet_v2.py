"""MobileNetV2 (Sandler et al. 2018, table 2), plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride of the first."""


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project linearly; a sum around it where sizes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNorm(inputs, hidden, activation=nn.ReLU6))
        layers += [
            ConvNorm(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            ConvNorm(hidden, outputs, activation=None),
        ]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H/stride, W/stride]."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.ReLU6)]
        inputs = 32
        for expansion, width, depth, stride in STAGES:
            for index in range(depth):
                layers.append(
                    InvertedResidual(inputs, width, stride if index == 0 else 1, expansion)
                )
                inputs = width
        layers.append(ConvNorm(inputs, 1280, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def mobilenet_v2() -> nn.Module:
    """3.5 million parameters."""
    return MobileNetV2()
