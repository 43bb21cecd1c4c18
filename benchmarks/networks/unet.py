"""U-Net (Ronneberger et al. 2015), padded, with batch norm and transposed convolutions."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from networks.blocks import ConvNorm

WIDTHS = (32, 64, 128, 256, 512)


def double(inputs: int, outputs: int) -> nn.Module:
    """Two 3x3 convolutions."""
    return nn.Sequential(ConvNorm(inputs, outputs, 3), ConvNorm(outputs, outputs, 3))


class UNet(nn.Module):
    """[N, 3, H, W] -> [N, classes, H, W]; H and W multiples of 16."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.first = double(3, WIDTHS[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), double(inputs, outputs))
            for inputs, outputs in itertools.pairwise(WIDTHS)
        )
        upwards = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 2, 2) for inputs, outputs in upwards
        )
        self.merge = nn.ModuleList(double(inputs, outputs) for inputs, outputs in upwards)
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits per pixel."""
        skips = [self.first(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y = merge(torch.cat([skips.pop(), up(y)], dim=1))
        logits: torch.Tensor = self.head(y)
        return logits


def unet() -> nn.Module:
    """7.8 million parameters."""
    return UNet()
