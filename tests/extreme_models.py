"""Networks whose ranges make no sense for eight bits, and which must go through all the same."""

from __future__ import annotations

import torch
from torch import nn


class TwoSums(nn.Module):
    """relu(a(x) + b(x)), flattened, into a linear; `bias` and `ratio` set the convolutions."""

    def __init__(self, bias: float | None, ratio: float | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, 5)
        with torch.no_grad():
            if bias is not None:
                self.a.bias.fill_(bias)  # type: ignore[union-attr]
                self.b.bias.fill_(bias)  # type: ignore[union-attr]
            if ratio is not None:
                self.b.weight.copy_(-self.a.weight * ratio)
                self.b.bias.copy_(-self.a.bias * ratio)  # type: ignore[union-attr,operator]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 8, 8] -> [N, 5]."""
        logits: torch.Tensor = self.head(torch.flatten(torch.relu(self.a(x) + self.b(x)), 1))
        return logits


class DeadRelu(nn.Module):
    """A convolution so far below zero that its Relu never fires, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4 * 36, 5)
        with torch.no_grad():
            self.a.weight *= 1e5
            self.a.bias.fill_(-1e8)  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 8, 8] -> [N, 5]."""
        y = torch.relu(self.b(torch.relu(self.a(x))))
        logits: torch.Tensor = self.head(torch.flatten(y, 1))
        return logits


def dead_relu() -> nn.Module:
    """A Relu that never fires."""
    return DeadRelu()


def dead_sum() -> nn.Module:
    """A Relu behind a sum that is always negative."""
    return TwoSums(-1e4, None)


def cancelling_sum() -> nn.Module:
    """A sum of two tensors that nearly cancel."""
    return TwoSums(None, 1 - 1e-4)
