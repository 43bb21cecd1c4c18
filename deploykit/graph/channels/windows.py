"""Which taps of a kernel lie inside the input, by output position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploykit.spec.arrays import BoolArray


def taps_inside(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> BoolArray:
    """[P, taps]: every different set of taps that an output position of a convolution sees.

    sizes: of the input's axes; pads: all begins, then all ends.
    """
    by_axis = []
    for axis, size in enumerate(sizes):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        begin, end = pads[axis], pads[axis + len(sizes)]
        starts = np.arange((size + begin + end - reach) // strides[axis] + 1) * strides[axis]
        at = starts[:, None] - begin + np.arange(kernel[axis])[None, :] * dilations[axis]
        by_axis.append(np.unique((at >= 0) & (at < size), axis=0))
    inside = np.ones((1, 1), dtype=bool)
    for seen in by_axis:
        product = inside[:, None, :, None] & seen[None, :, None, :]
        inside = product.reshape(inside.shape[0] * seen.shape[0], -1)
    return inside
