"""Gates that multiply channels and can close: hard concrete variables, one per channel.

a = qz_loga [C], the location; u ~ U(0, 1)
train():  s = sigmoid((log u - log(1 - u) + a) / (2/3)),  z = clip(1.2 s - 0.1, 0, 1)
eval():   z = clip(1.2 sigmoid(a) - 0.1, 0, 1), exactly 0 at a <= -log 11
P(z > 0) = sigmoid(a + 2/3 log 11)
Source: Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization",
ICLR 2018, equations 10 to 13; the parameter's name as in the authors' published code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_TEMPERATURE = 2 / 3
_LOW, _HIGH = -0.1, 1.1
_INITIAL_OPEN = 0.8
_INITIAL_SPREAD = 0.01
_SMALLEST = 1e-6


class L0Gate(nn.Module):
    """One gate for each channel of x [N, C, L]; training draws one for each window and channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qz_loga = nn.Parameter(torch.empty(channels))
        nn.init.normal_(
            self.qz_loga, math.log(_INITIAL_OPEN / (1 - _INITIAL_OPEN)), _INITIAL_SPREAD
        )

    def open_probability(self) -> Tensor:
        """P(z > 0) of each gate  [C]."""
        return torch.sigmoid(self.qz_loga - _TEMPERATURE * math.log(-_LOW / _HIGH))

    def evaluated(self) -> Tensor:
        """What eval() multiplies with  [C]."""
        return ((_HIGH - _LOW) * torch.sigmoid(self.qz_loga) + _LOW).clamp(0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.evaluated()[:, None]
        u = torch.rand(x.shape[:2]).clamp(_SMALLEST, 1 - _SMALLEST)
        s = torch.sigmoid((u.log() - (-u).log1p() + self.qz_loga) / _TEMPERATURE)
        return x * ((_HIGH - _LOW) * s + _LOW).clamp(0.0, 1.0)[:, :, None]
