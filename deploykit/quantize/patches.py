"""What a layer's weights are multiplied with, at a few of its output positions."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Float64Array, FloatArray
from deploykit.spec.operators import Window


def sample_patches(
    values: FloatArray, window: Window | None, output: tuple[int, ...], count: int, seed: int
) -> FloatArray:
    """[P, C, taps] of one sample, P at most `count`: positions drawn without replacement.

    values: [rows, C, H, W] and output: (H', W'), or of a linear [rows, C] and (), its window None.
    Zeros where the window reaches into padding.
    """
    area = int(np.prod(output))
    positions = len(values) * area
    drawn = np.arange(positions)
    if count < positions:
        drawn = np.sort(np.random.default_rng(seed).choice(positions, count, replace=False))
    row, place = np.divmod(drawn, area)
    if window is None:
        return values[row][:, :, None]
    _, _, height, width = values.shape
    down, across = np.divmod(place, output[1])
    taps = []
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            y = down * window.strides[0] + i * window.dilations[0] - window.pads[0]
            x = across * window.strides[1] + j * window.dilations[1] - window.pads[1]
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            seen = values[row, :, np.where(inside, y, 0), np.where(inside, x, 0)]
            taps.append(np.where(inside[:, None], seen, np.zeros((), values.dtype)))
    return np.stack(taps, axis=-1)


def tap_means(values: FloatArray, window: Window | None, output: tuple[int, ...]) -> Float64Array:
    """[C, taps]: the mean under every kernel position, over all output positions.

    values: as for `sample_patches`; zeros in padding count.
    """
    if window is None:
        return np.asarray(values.mean(axis=0, dtype=np.float64))[:, None]
    rows, channels, height, width = values.shape
    summed = values.sum(axis=0, dtype=np.float64)
    means = []
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            down = _inside(height, output[0], i, 0, window)
            across = _inside(width, output[1], j, 1, window)
            seen = summed[:, down, across].sum(axis=(1, 2))
            means.append(seen / (rows * output[0] * output[1]))
    return np.stack(means, axis=-1).reshape(channels, -1)


def _inside(length: int, outputs: int, tap: int, axis: int, window: Window) -> slice:
    """Which pixels along an axis one tap meets at all output positions, padding left out."""
    stride = window.strides[axis]
    first = tap * window.dilations[axis] - window.pads[axis]
    skipped = max(0, -(first // stride))
    start = first + skipped * stride
    stop = min(length, first + (outputs - 1) * stride + 1)
    return slice(start, max(start, stop), stride)
