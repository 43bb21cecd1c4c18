"""The canonical weight [O, I/groups, taps...] of every layer, against a loop over groups."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.channels.kernel import KernelLayout, taps
from tests.graph.text import weights


@pytest.mark.parametrize("operator", ["Conv", "Gemm"])
def test_convolutions_and_linears_are_stored_as_they_are_read(operator: str) -> None:
    stored = weights(6, 2, 3, 3)
    layout = KernelLayout(operator, 1)
    np.testing.assert_array_equal(layout.canonical(stored), stored)
    np.testing.assert_array_equal(layout.stored(stored.astype(np.float64), 1), stored)


def test_a_product_is_stored_transposed() -> None:
    stored = weights(3, 5)
    layout = KernelLayout("MatMul", 1)
    np.testing.assert_array_equal(layout.canonical(stored), stored.T)
    np.testing.assert_array_equal(layout.stored(layout.canonical(stored), 1), stored)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_transposed_convolution_is_stored_by_input(groups: int) -> None:
    stored = weights(6, 2, 3, 4)  # [I, O/groups, kh, kw]
    layout = KernelLayout("ConvTranspose", groups)
    canonical = layout.canonical(stored)
    per = 6 // groups
    assert canonical.shape == (2 * groups, per, 3, 4)
    for o in range(2 * groups):
        for i in range(per):
            read = stored[(o // 2) * per + i, o % 2]
            np.testing.assert_array_equal(canonical[o, i], read)
    np.testing.assert_array_equal(layout.stored(canonical, groups), stored)


def test_taps_are_what_is_left() -> None:
    assert taps(np.zeros((2, 3, 4, 5))) == (2, 3)
    assert taps(np.zeros((2, 3))) == ()
