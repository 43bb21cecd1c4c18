"""The schedule that the samples train by."""

from __future__ import annotations

import math

import torch


def set_learning_rates(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Cosine decay from each group's peak to a hundredth of it; progress in [0, 1]."""
    factor = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
