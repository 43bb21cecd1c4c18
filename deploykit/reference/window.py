"""Sliding windows over [N, C, H, W] arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from deploykit.spec.operators import Window

Scalar = TypeVar("Scalar", bound=np.generic)


def output_length(length: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
    """floor((length + pads - dilation * (kernel - 1) - 1) / stride) + 1.

    output_length(224, 7, 2, 6, 1) -> 112
    """
    return (length + pads - dilation * (kernel - 1) - 1) // stride + 1


def output_size(shape: tuple[int, ...], window: Window) -> tuple[int, int]:
    """Height and width of what a window leaves of images of shape [..., H, W]."""
    height, width = shape[-2:]
    top, left, bottom, right = window.pads
    (kernel_h, kernel_w), (stride_h, stride_w) = window.kernel, window.strides
    return (
        output_length(height, kernel_h, stride_h, top + bottom, window.dilations[0]),
        output_length(width, kernel_w, stride_w, left + right, window.dilations[1]),
    )


def pad(
    images: npt.NDArray[Scalar], pads: tuple[int, int, int, int], fill: float
) -> npt.NDArray[Scalar]:
    """images [N, C, H, W] with `fill` around them; the very same array where there are no pads."""
    top, left, bottom, right = pads
    if not any(pads):
        return images
    count, channels, height, width = images.shape
    shape = (count, channels, height + top + bottom, width + left + right)
    padded = np.full(shape, fill, dtype=images.dtype)
    padded[:, :, top : top + height, left : left + width] = images
    return padded


def taps(
    images: npt.NDArray[Scalar], window: Window, fill: float
) -> Iterator[tuple[tuple[int, int], npt.NDArray[Scalar]]]:
    """For each kernel position (row, column) the view [N, C, H', W'] of what it reads."""
    rows, columns = output_size(images.shape, window)
    padded = pad(images, window.pads, fill)
    (stride_h, stride_w), (dilation_h, dilation_w) = window.strides, window.dilations
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * dilation_h, column * dilation_w
            yield (
                (row, column),
                padded[
                    :,
                    :,
                    top : top + (rows - 1) * stride_h + 1 : stride_h,
                    left : left + (columns - 1) * stride_w + 1 : stride_w,
                ],
            )
