"""Which taps an output position sees, against a loop over the positions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from deploykit.graph.channels.windows import taps_inside

GEOMETRIES = [
    ((5,), (3,), (1,), (1,), (1, 1)),
    ((5,), (3,), (2,), (1,), (1, 1)),
    ((4,), (3,), (1,), (2,), (2, 2)),
    ((2,), (5,), (1,), (1,), (2, 2)),
    ((4, 6), (3, 1), (1, 2), (1, 1), (1, 0, 1, 0)),
    ((3, 3), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("sizes", "kernel", "strides", "dilations", "pads"), GEOMETRIES)
def test_every_set_of_taps_and_no_other(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
) -> None:
    image = np.pad(
        np.ones(sizes, dtype=bool),
        [(pads[k], pads[k + len(sizes)]) for k in range(len(sizes))],
    )
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    starts = [
        range(0, size - reach + 1, stride)
        for size, reach, stride in zip(image.shape, reaches, strides, strict=True)
    ]
    seen = {
        tuple(
            bool(image[tuple(a + t * d for a, t, d in zip(at, tap, dilations, strict=True))])
            for tap in product(*(range(k) for k in kernel))
        )
        for at in product(*starts)
    }
    found = taps_inside(sizes, kernel, strides, dilations, pads)
    assert {tuple(row.tolist()) for row in found} == seen
    assert len(found) == len(seen)
