"""Refitted scales: never a larger error, never under the floor."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.clipping import clipped_scales
from deploykit.quantize.compensation import compensated_weights
from deploykit.quantize.refitting import refitted_weights
from tests.quantize.test_clipping import drawn, full_scales, moments_of, row_error

SHAPES = [((6, 40), 40), ((6, 3, 3, 3), 6), ((6, 1, 5, 5), 6), ((6, 160, 3, 3), 160)]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("shape", "channels"), SHAPES)
def test_no_row_errs_more_and_all_together_less(
    shape: tuple[int, ...], channels: int, bits: int
) -> None:
    weight, floor = drawn(*shape), np.zeros(6, np.float32)
    moments = moments_of(weight, channels)
    least = clipped_scales(weight, full_scales(weight, bits), np.zeros(6), moments, bits)
    found = compensated_weights(weight, least, moments, bits)
    refitted = refitted_weights(weight, found, floor, moments, bits)
    before, after = (row_error(weight, *one, moments) for one in (found, refitted))
    assert np.all(after <= before)
    assert after.sum() < before.sum()
    assert np.abs(refitted[0].astype(int)).max() <= 2 ** (bits - 1) - 1


def test_scales_stay_over_the_floor_and_rows_of_zeros_keep_theirs() -> None:
    weight = drawn(6, 40)
    weight[1] = 0.0
    moments, full = moments_of(weight, 40), full_scales(weight, 4)
    found = compensated_weights(weight, full, moments, 4)
    values, scale = refitted_weights(weight, found, full, moments, 4)
    assert np.all(scale >= full)
    assert scale[1] == full[1]
    assert not values[1].any()
