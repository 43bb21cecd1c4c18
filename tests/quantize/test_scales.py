"""Scales and zero points of activations: literal cases and what every one must satisfy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.quantize.calibration import Calibration
from deploykit.quantize.histogram import Histogram, empty_histogram, observe
from deploykit.quantize.scales import (
    SMALLEST_SCALE,
    activation_quantization,
    affine_scale,
    input_quantization,
)
from deploykit.spec.arrays import AnyArray
from deploykit.spec.quantized import Quantization


def histogram_of(*values: float) -> Histogram:
    return observe(empty_histogram(), np.array(values, np.float32))


def exact_float32(value: float) -> bool:
    return float(np.float32(value)) == value


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [(0.0, 2.55, -128), (-2.55, 0.0, 127), (-1.28, 1.27, 0), (-1.0, 3.0, -64)],
)
def test_known_ranges(low: float, high: float, zero_point: int) -> None:
    found = affine_scale(low, high)
    assert found.scale == float(np.float32((high - low) / 255))
    assert found.zero_point == zero_point


@given(low=st.floats(-1e6, 0.0), width=st.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_zero_is_an_integer_and_the_range_is_covered(low: float, width: float) -> None:
    high = max(low + width, 0.0)
    found = affine_scale(low, high)
    assert exact_float32(found.scale)
    assert -128 <= found.zero_point <= 127
    ends = np.array([low, 0.0, high], np.float32)
    restored = found.dequantize(found.quantize(ends))
    assert restored[1] == 0.0
    assert np.all(np.abs(restored - ends) <= 1.01 * found.scale)


def test_a_range_of_almost_nothing_keeps_a_positive_scale() -> None:
    assert affine_scale(0.0, 1e-40).scale == SMALLEST_SCALE


@pytest.mark.parametrize("method", list(Calibration))
def test_after_relu_the_zero_point_is_the_lowest_integer(method: Calibration) -> None:
    histogram = histogram_of(0.0, 0.3, 1.0, 2.0, 2.5)
    found = activation_quantization(histogram, method, 0.0, None)
    assert found.zero_point == -128
    assert found.dequantize(np.array([-128], np.int8))[0] == 0.0


def test_relu6_ends_at_six() -> None:
    found = activation_quantization(histogram_of(0.0, 3.0, 6.0), Calibration.MINMAX, 0.0, 6.0)
    assert found == Quantization(float(np.float32(6 / 255)), -128)


def test_a_fused_bound_cuts_what_calibration_saw_beyond_it() -> None:
    found = activation_quantization(histogram_of(-4.0, 8.0), Calibration.MINMAX, 0.0, 6.0)
    assert found == affine_scale(0.0, 6.0)


def test_a_relu_that_never_opened_gets_a_legal_scale() -> None:
    found = activation_quantization(histogram_of(0.0, 0.0), Calibration.MSE, 0.0, None)
    assert found == affine_scale(0.0, 1.0)


@given(
    low=st.floats(-100.0, 0.0), high=st.floats(0.0, 100.0),
    method=st.sampled_from(list(Calibration)),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_an_input_scale_is_a_power_of_two_next_to_the_wanted_one(
    low: float, high: float, method: Calibration
) -> None:
    histogram = histogram_of(low, high, 0.5 * low, 0.25 * high)
    found = input_quantization(histogram, method)
    mantissa, _ = math.frexp(found.scale)
    assert mantissa == 0.5
    assert exact_float32(found.scale)
    assert -128 <= found.zero_point <= 127
    assert found.dequantize(found.quantize(np.zeros(1, np.float32)))[0] == 0.0


@pytest.mark.parametrize(
    ("pixels", "scale", "zero_point"),
    [
        (np.arange(256) / 255.0, 2.0**-8, -128),
        (np.arange(256).astype(float), 1.0, -128),
        (np.linspace(-1, 1, 256), 2.0**-7, 0),
    ],
)
def test_pixels_get_the_power_of_two_that_loses_least(
    pixels: AnyArray, scale: float, zero_point: int
) -> None:
    histogram = histogram_of(*pixels)
    assert input_quantization(histogram, Calibration.MINMAX) == Quantization(scale, zero_point)


def test_of_two_powers_the_one_with_the_smaller_error_is_taken() -> None:
    """Where most values sit low, clipping a few beats doubling every step; and the reverse."""
    low = np.random.default_rng(0).uniform(0, 0.9, 20_000)
    few_high = histogram_of(*low, 1.02)
    many_high = histogram_of(*low, *np.full(20_000, 1.6))
    assert input_quantization(few_high, Calibration.MINMAX).scale == 2.0**-8
    assert input_quantization(many_high, Calibration.MINMAX).scale == 2.0**-7


def test_an_input_of_almost_nothing_keeps_a_float32_scale() -> None:
    found = input_quantization(histogram_of(0.0, 1e-44), Calibration.MINMAX)
    assert found.scale >= SMALLEST_SCALE
    assert exact_float32(found.scale)
