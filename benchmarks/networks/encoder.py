"""A small transformer encoder over frames of features (Vaswani et al. 2017), as torch writes it."""

from __future__ import annotations

import torch
from torch import nn

FEATURES, FRAMES, WIDTH, HEADS, DEPTH, CLASSES = 40, 98, 128, 4, 3, 35


class Encoder(nn.Module):
    """[N, FRAMES, FEATURES] -> [N, CLASSES]: keywords, say."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.position = nn.Parameter(torch.zeros(1, FRAMES, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="relu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, from the mean over frames."""
        mixed = self.encoder(self.embed(x) + self.position)
        out: torch.Tensor = self.classifier(mixed.mean(dim=1))
        return out


def encoder() -> nn.Module:
    """For a second of speech."""
    return Encoder()
