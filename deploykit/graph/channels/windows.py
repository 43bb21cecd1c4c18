"""Which taps of a kernel an output position can see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploykit.spec.arrays import BoolArray

MOST_SETS = 4096
"""More different sets of taps than this are not looked at."""


def taps_inside(
    kernel: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> BoolArray | None:
    """[P, taps]: every set of taps that a position of a convolution may see, whatever the size.

    Along an axis that is any run of taps of which padding cuts off some at the begin, some at the
    end, or both. pads: all begins, then all ends. None where there are more than MOST_SETS.
    """
    by_axis = []
    for axis, length in enumerate(kernel):
        cut = [-(-pads[axis + end] // dilations[axis]) for end in (0, len(kernel))]
        begins, ends = (range(min(most, length - 1) + 1) for most in cut)
        if len(begins) * len(ends) > MOST_SETS:
            return None
        # Taps that stand close together cannot all miss the input; ones with holes can.
        most_cut = length - 1 if dilations[axis] == 1 else length
        runs = {(b, e) for b in begins for e in ends if b + e <= most_cut}
        seen = np.zeros((len(runs), length), dtype=bool)
        for row, (begin, end) in zip(seen, sorted(runs), strict=True):
            row[begin : length - end] = True
        by_axis.append(np.unique(seen, axis=0))
    if np.prod([len(seen) for seen in by_axis], dtype=np.float64) > MOST_SETS:
        return None
    inside = np.ones((1, 1), dtype=bool)
    for seen in by_axis:
        product = inside[:, None, :, None] & seen[None, :, None, :]
        inside = product.reshape(inside.shape[0] * seen.shape[0], -1)
    return inside
