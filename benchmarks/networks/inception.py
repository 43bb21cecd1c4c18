"""Inception-v3 (Szegedy et al. 2016, table 1) without its auxiliary classifier, plain torch."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm


class Branches(nn.Module):
    """Branches that read the same tensor, their channels put behind each other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, sum of the branches' channels, H', W']."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def pooled(inputs: int, outputs: int) -> nn.Module:
    """A padded average pool, which counts the padding, and a 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvNorm(inputs, outputs))


def block35(inputs: int, pool: int) -> nn.Module:
    """Figure 5: 5x5 as two 3x3 in one branch."""
    return Branches(
        ConvNorm(inputs, 64),
        nn.Sequential(ConvNorm(inputs, 48), ConvNorm(48, 64, 5)),
        nn.Sequential(ConvNorm(inputs, 64), ConvNorm(64, 96, 3), ConvNorm(96, 96, 3)),
        pooled(inputs, pool),
    )


def shrink35(inputs: int) -> nn.Module:
    """35x35 to 17x17 without padding."""
    return Branches(
        ConvNorm(inputs, 384, 3, 2, padding=0),
        nn.Sequential(ConvNorm(inputs, 64), ConvNorm(64, 96, 3), ConvNorm(96, 96, 3, 2, padding=0)),
        nn.MaxPool2d(3, 2),
    )


def block17(inputs: int, hidden: int) -> nn.Module:
    """Figure 6: 7x7 as 1x7 and 7x1."""
    return Branches(
        ConvNorm(inputs, 192),
        nn.Sequential(
            ConvNorm(inputs, hidden), ConvNorm(hidden, hidden, (1, 7)),
            ConvNorm(hidden, 192, (7, 1)),
        ),
        nn.Sequential(
            ConvNorm(inputs, hidden), ConvNorm(hidden, hidden, (7, 1)),
            ConvNorm(hidden, hidden, (1, 7)), ConvNorm(hidden, hidden, (7, 1)),
            ConvNorm(hidden, 192, (1, 7)),
        ),
        pooled(inputs, 192),
    )  # fmt: skip


def shrink17(inputs: int) -> nn.Module:
    """17x17 to 8x8 without padding."""
    return Branches(
        nn.Sequential(ConvNorm(inputs, 192), ConvNorm(192, 320, 3, 2, padding=0)),
        nn.Sequential(
            ConvNorm(inputs, 192), ConvNorm(192, 192, (1, 7)), ConvNorm(192, 192, (7, 1)),
            ConvNorm(192, 192, 3, 2, padding=0),
        ),
        nn.MaxPool2d(3, 2),
    )  # fmt: skip


def block8(inputs: int) -> nn.Module:
    """Figure 7: branches that end in 1x3 beside 3x1."""

    def fan() -> nn.Module:
        return Branches(ConvNorm(384, 384, (1, 3)), ConvNorm(384, 384, (3, 1)))

    return Branches(
        ConvNorm(inputs, 320),
        nn.Sequential(ConvNorm(inputs, 384), fan()),
        nn.Sequential(ConvNorm(inputs, 448), ConvNorm(448, 384, 3), fan()),
        pooled(inputs, 192),
    )


class InceptionV3(nn.Module):
    """[N, 3, H, W], H and W at least 75 -> [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNorm(3, 32, 3, 2, padding=0), ConvNorm(32, 32, 3, padding=0), ConvNorm(32, 64, 3),
            nn.MaxPool2d(3, 2), ConvNorm(64, 80), ConvNorm(80, 192, 3, padding=0),
            nn.MaxPool2d(3, 2), block35(192, 32), block35(256, 64), block35(288, 64),
            shrink35(288), block17(768, 128), block17(768, 160), block17(768, 160),
            block17(768, 192), shrink17(768), block8(1280), block8(2048),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(2048, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled_features = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled_features, 1))
        return logits


def inception_v3() -> nn.Module:
    """23.8 million parameters."""
    return InceptionV3()
