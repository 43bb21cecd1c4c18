"""DS-CNN for keyword spotting (Zhang et al. 2017; the form of MLPerf Tiny), plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm

WIDTH = 64
BLOCKS = 4


class DsCnn(nn.Module):
    """[N, 1, 49, 10], 49 frames of 10 cepstral coefficients -> [N, classes]."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(1, WIDTH, (10, 4), 2, padding=(5, 1)), nn.Dropout(0.2)]
        for _ in range(BLOCKS):
            layers += [ConvNorm(WIDTH, WIDTH, 3, groups=WIDTH), ConvNorm(WIDTH, WIDTH)]
        self.features = nn.Sequential(*layers, nn.Dropout(0.4))
        self.classifier = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def ds_cnn() -> nn.Module:
    """23 thousand parameters."""
    return DsCnn()
