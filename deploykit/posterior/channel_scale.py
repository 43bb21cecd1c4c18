"""The torch layer that takes the place of a multiplicative gate layer."""

from __future__ import annotations

import torch
from torch import nn


class ChannelScale(nn.Module):
    """y = x * weight along axis 1 of [N, C, ...]; weight [C]."""

    weight: nn.Parameter

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] -> [N, C, ...]."""
        return x * self.weight.reshape(1, -1, *(1,) * (x.ndim - 2))
