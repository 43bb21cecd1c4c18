"""MobileNetV3-Large (Howard et al. 2019, table 1), plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm

SQUEEZE, PLAIN = True, False
BLOCKS: tuple[tuple[int, int, int, bool, type[nn.Module], int], ...] = (
    (3, 16, 16, PLAIN, nn.ReLU, 1),
    (3, 64, 24, PLAIN, nn.ReLU, 2),
    (3, 72, 24, PLAIN, nn.ReLU, 1),
    (5, 72, 40, SQUEEZE, nn.ReLU, 2),
    (5, 120, 40, SQUEEZE, nn.ReLU, 1),
    (5, 120, 40, SQUEEZE, nn.ReLU, 1),
    (3, 240, 80, PLAIN, nn.Hardswish, 2),
    (3, 200, 80, PLAIN, nn.Hardswish, 1),
    (3, 184, 80, PLAIN, nn.Hardswish, 1),
    (3, 184, 80, PLAIN, nn.Hardswish, 1),
    (3, 480, 112, SQUEEZE, nn.Hardswish, 1),
    (3, 672, 112, SQUEEZE, nn.Hardswish, 1),
    (5, 672, 160, SQUEEZE, nn.Hardswish, 2),
    (5, 960, 160, SQUEEZE, nn.Hardswish, 1),
    (5, 960, 160, SQUEEZE, nn.Hardswish, 1),
)
"""Kernel, hidden channels, channels, squeeze-and-excite, activation, stride."""


def eighths(value: float) -> int:
    """The nearest multiple of 8, not under 90 % of the value."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


class SqueezeExcite(nn.Module):
    """A gate per channel from the channels' means (Hu et al. 2018), hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, eighths(channels / 4), 1)
        self.fc2 = nn.Conv2d(eighths(channels / 4), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        squeezed = torch.relu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x * nn.functional.hardsigmoid(self.fc2(squeezed))


class Block(nn.Module):
    """Expand, depthwise, gate, project linearly; a sum around it where sizes allow."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        hidden: int,
        outputs: int,
        squeeze: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(ConvNorm(inputs, hidden, activation=activation))
        layers.append(ConvNorm(hidden, hidden, kernel, stride, hidden, activation))
        if squeeze:
            layers.append(SqueezeExcite(hidden))
        layers.append(ConvNorm(hidden, outputs, activation=None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H/stride, W/stride]."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, activation=nn.Hardswish)]
        inputs = 16
        for kernel, hidden, outputs, squeeze, activation, stride in BLOCKS:
            layers.append(Block(inputs, kernel, hidden, outputs, squeeze, activation, stride))
            inputs = outputs
        layers.append(ConvNorm(inputs, 960, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def mobilenet_v3_large() -> nn.Module:
    """5.5 million parameters."""
    return MobileNetV3()
