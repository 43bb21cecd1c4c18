"""Which taps an output position may see, against a loop over positions and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.channels.windows import taps_inside

GEOMETRIES = [(3, 1, 1, 1), (3, 1, 1, 0), (3, 2, 2, 2), (5, 1, 2, 2), (4, 1, 1, 2), (5, 3, 4, 1)]
"""(taps, dilation, pad at the begin, pad at the end)"""


@pytest.mark.parametrize(("taps", "dilation", "begin", "end"), GEOMETRIES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_no_size_shows_a_set_of_taps_that_is_not_among_them(
    taps: int, dilation: int, begin: int, end: int, stride: int
) -> None:
    found = taps_inside((taps,), (dilation,), (begin, end))
    assert found is not None
    known = {tuple(row.tolist()) for row in found}
    reach = (taps - 1) * dilation + 1
    for size in range(1, 3 * reach):
        for start in range(0, size + begin + end - reach + 1, stride):
            at = np.arange(taps) * dilation + start - begin
            inside = tuple(((at >= 0) & (at < size)).tolist())
            assert inside in known, size


def test_axes_multiply_and_unpadded_ones_see_all() -> None:
    found = taps_inside((2, 3), (1, 1), (0, 1, 0, 0))
    assert found is not None
    assert found.astype(int).tolist() == [[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]]


def test_too_many_sets_are_not_looked_at() -> None:
    assert taps_inside((201, 201), (1, 1), (100,) * 4) is None
