"""DenseNet-121 (Huang et al. 2017, table 1), plain torch: batch norm before the convolutions."""

from __future__ import annotations

import torch
from torch import nn

DEPTHS = (6, 12, 24, 16)
GROWTH = 32


def norm_conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """Batch norm, relu, convolution."""
    return [
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
    ]


class DenseLayer(nn.Module):
    """1x1 to 4 k channels, 3x3 to k channels, which are put behind the input's."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *norm_conv(inputs, 4 * GROWTH, 1), *norm_conv(4 * GROWTH, GROWTH, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C + k, H, W]."""
        return torch.cat([x, self.body(x)], dim=1)


class DenseNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        width = 2 * GROWTH
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        for stage, depth in enumerate(DEPTHS):
            for _ in range(depth):
                layers.append(DenseLayer(width))
                width += GROWTH
            if stage + 1 < len(DEPTHS):
                layers += [*norm_conv(width, width // 2, 1), nn.AvgPool2d(2)]
                width //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def densenet121() -> nn.Module:
    """8.0 million parameters."""
    return DenseNet()
