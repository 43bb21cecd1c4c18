"""Random views of training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHIFT = 2


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [N, 1, H, W] mirrored or not, and moved by up to two pixels each way."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = functional.pad(images[:, 0], (_SHIFT,) * 4)
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2, count), generator=generator)
    rows = (down[:, None] + torch.arange(height))[:, :, None]
    columns = (right[:, None] + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns][:, None]


def resized(images: Tensor, side: int) -> Tensor:
    """[N, 1, side, side], each pixel a mean of those that it covers."""
    if images.shape[2] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
