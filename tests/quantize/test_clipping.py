"""Scales of clipped weights: never a larger error than unclipped ones, and legal at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.blocking import blocking_of
from deploykit.quantize.clipping import FACTORS, clipped_scales
from deploykit.quantize.compensation import output_error
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.weights import round_weights, smallest_scales, weight_scales
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array

NO_FLOOR = np.zeros(6)


def drawn(*shape: int) -> Float64Array:
    return np.random.default_rng(0).standard_normal(shape)


def full_scales(weight: Float64Array, bits: int) -> Float32Array:
    return weight_scales(weight, np.zeros(len(weight)), 0.1, 0.1, bits)


def moments_of(weight: Float64Array, channels: int) -> InputMoments:
    blocking = blocking_of(weight, channels)
    blocks, _, size = blocking.split(weight).shape
    inputs = np.maximum(np.random.default_rng(1).normal(size=(blocks, 500, size)) + 0.5, 0.0)
    products = inputs.transpose(0, 2, 1) @ inputs / 500
    return InputMoments(blocking, products.astype(np.float32), 500)


def row_error(
    weight: Float64Array, values: Int8Array, scale: Float32Array, moments: InputMoments
) -> Float64Array:
    """[O], row after row and block after block."""
    wide = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = moments.blocking.split(values * wide - weight)
    by_block = output_error(error, moments.trusted())
    parts, rows = moments.blocking.parts, by_block.shape[1]
    return np.array(
        [
            sum(by_block[group * parts + part, row] for part in range(parts))
            for group in range(moments.blocking.groups)
            for row in range(rows)
        ]
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((6, 40), 40), ((6, 3, 3, 3), 6), ((6, 1, 5, 5), 6), ((6, 160, 3, 3), 160)],
)
def test_no_row_errs_more_than_unclipped_and_few_bits_gain(
    shape: tuple[int, ...], channels: int, bits: int
) -> None:
    weight = drawn(*shape)
    moments, full = moments_of(weight, channels), full_scales(weight, bits)
    scale = clipped_scales(weight, full, NO_FLOOR, moments, bits)
    before, after = (
        row_error(weight, round_weights(weight, one, bits), one, moments) for one in (full, scale)
    )
    assert np.all(after <= before * (1 + 1e-9))
    assert np.all((scale <= full) & (scale >= full * np.float32(0.99 * FACTORS[-1])))
    assert bits > 4 or after.sum() < 0.95 * before.sum()


def test_without_moments_the_weights_own_error_decides() -> None:
    weight = np.ones((1, 101))
    weight[0, 0] = 2.0
    scale = clipped_scales(weight, full_scales(weight, 2), NO_FLOOR[:1], None, 2)
    assert scale[0] == pytest.approx(1.0)


def test_eight_bits_keep_their_largest_weight() -> None:
    weight = drawn(6, 40)
    full = full_scales(weight, 8)
    assert clipped_scales(weight, full, NO_FLOOR, moments_of(weight, 40), 8) is full


def test_rows_of_zeros_and_inputs_that_are_always_zero_keep_their_scale() -> None:
    weight = drawn(6, 40)
    weight[2] = 0.0
    full, moments = full_scales(weight, 4), moments_of(weight, 40)
    assert clipped_scales(weight, full, NO_FLOOR, moments, 4)[2] == full[2]
    silent = InputMoments(moments.blocking, np.zeros_like(moments.blocks), 500)
    np.testing.assert_array_equal(clipped_scales(weight, full, NO_FLOOR, silent, 4), full)


@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-30, 1e30])
@pytest.mark.parametrize("bits", [2, 4])
def test_denormal_and_huge_weights_get_finite_scales_that_runtimes_take(
    size: float, bits: int
) -> None:
    weight = drawn(6, 40) * size
    floor = smallest_scales(np.zeros(6), 0.1, 0.1, bits)
    scale = clipped_scales(weight, full_scales(weight, bits), floor, moments_of(weight, 40), bits)
    assert np.all(np.isfinite(scale)) and np.all(scale >= floor.astype(np.float32))
    values = round_weights(weight, scale, bits)
    assert np.abs(values.astype(int)).max() <= 2 ** (bits - 1) - 1
