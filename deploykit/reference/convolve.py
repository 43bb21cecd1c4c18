"""Convolution through matrix products, a bounded number of im2col elements at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deploykit.reference.window import output_size, patches, taps
from deploykit.spec.arrays import FloatArray
from deploykit.spec.quantized import Window

CHUNK_ELEMENTS = 1 << 23
"""Largest number of im2col elements held at a time."""


def convolve(images: FloatArray, weight: FloatArray, window: Window, groups: int) -> FloatArray:
    """[N, C, H, W] with weight [O, C/groups, kh, kw] -> [N, O, H', W'], padded with zeros."""
    rows, columns = output_size(images.shape, window)
    sums: FloatArray = np.empty((len(images), len(weight), rows, columns), dtype=images.dtype)
    for part in chunks(images.shape, window):
        if weight.shape[1] == 1:
            _depthwise(images[part], weight, window, sums[part])
        else:
            _grouped(images[part], weight, window, groups, sums[part])
    return sums


def chunks(shape: tuple[int, ...], window: Window) -> Iterator[slice]:
    """Slices of a batch whose im2col stays within CHUNK_ELEMENTS, at least one image each."""
    rows, columns = output_size(shape, window)
    per_image = max(1, shape[1] * window.kernel[0] * window.kernel[1] * rows * columns)
    step = max(1, CHUNK_ELEMENTS // per_image)
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _grouped(
    images: FloatArray, weight: FloatArray, window: Window, groups: int, into: FloatArray
) -> None:
    """One matrix product per image and group: [O/G, K] @ [K, H' * W'], K = C/G * kh * kw."""
    kernels = weight.reshape(groups, len(weight) // groups, -1)
    columns = patches(images, window, 0.0).reshape(len(images), groups, kernels.shape[2], -1)
    np.matmul(kernels, columns, out=into.reshape(len(images), groups, kernels.shape[1], -1))


def _depthwise(images: FloatArray, weight: FloatArray, window: Window, into: FloatArray) -> None:
    """One multiply-add per kernel position; a channel feeds O/C consecutive outputs."""
    repeated = np.repeat(images, len(weight) // images.shape[1], axis=1)
    into.fill(0.0)
    for (row, column), seen in taps(repeated, window, 0.0):
        into += seen * weight[:, 0, row, column][:, None, None]
