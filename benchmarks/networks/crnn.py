"""A CRNN for lines of text (Shi et al. 2015), small: convolutions, a two-way GRU, a classifier."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 37
HIDDEN = 64


def _stage(inputs: int, outputs: int, pool: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(pool),
    )


class Crnn(nn.Module):
    """[N, 1, 32, W] -> [N, W / 4, CLASSES]."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            _stage(1, 32, (2, 2)), _stage(32, 64, (2, 2)), _stage(64, 128, (2, 1)),
            _stage(128, 128, (4, 1)),
        )  # fmt: skip
        self.recurrent = nn.GRU(128, HIDDEN, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits by column."""
        columns = self.stages(x).squeeze(2).transpose(1, 2)
        mixed, _ = self.recurrent(columns)
        out: torch.Tensor = self.classifier(mixed)
        return out


def crnn() -> nn.Module:
    """For lines of 32 pixels."""
    return Crnn()
