"""Ranges from histograms: each method against literal cases and its own criterion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.quantize.calibration import Calibration, choose_range, quantization_error
from deploykit.quantize.histogram import Histogram, empty_histogram, observe
from deploykit.quantize.scales import affine_scale
from deploykit.spec.arrays import AnyArray

METHODS = list(Calibration)


def histogram_of(values: AnyArray) -> Histogram:
    return observe(empty_histogram(), np.asarray(values, np.float32))


def normal(count: int, seed: int = 0) -> AnyArray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def error_of(values: AnyArray, chosen: tuple[float, float]) -> float:
    """Mean squared error of real int8 rounding over the chosen range."""
    quantization = affine_scale(*chosen)
    restored = quantization.dequantize(quantization.quantize(np.asarray(values, np.float32)))
    return float(np.mean((restored.astype(np.float64) - values) ** 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], (0.0, 1.0)),
        ([0.5, 0.5, 0.5], (0.0, 0.5)),
        ([-0.5, -0.5], (-0.5, 0.0)),
    ],
)
def test_a_constant_tensor_reaches_from_zero_to_its_value(
    method: Calibration, values: list[float], expected: tuple[float, float]
) -> None:
    low, high = choose_range(histogram_of(np.array(values)), method)
    assert low == pytest.approx(expected[0], rel=1e-3)
    assert high == pytest.approx(expected[1], rel=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, 2.0, 0.25], (-1.0, 2.0)),
        ([1.0, 3.0], (0.0, 3.0)),
        ([-4.0, -1.0], (-4.0, 0.0)),
    ],
)
def test_minmax_is_everything_seen_and_zero(
    values: list[float], expected: tuple[float, float]
) -> None:
    assert choose_range(histogram_of(np.array(values)), Calibration.MINMAX) == expected


def test_percentile_leaves_out_one_in_ten_thousand_on_each_side() -> None:
    values = np.concatenate([np.linspace(-1, 1, 40_000), [-50.0, -60.0, 80.0, 90.0]])
    low, high = choose_range(histogram_of(values), Calibration.PERCENTILE)
    assert low == pytest.approx(-1.0, abs=0.02)
    assert high == pytest.approx(1.0, abs=0.02)


def test_percentile_keeps_what_is_more_frequent() -> None:
    values = np.concatenate([np.zeros(10_000), np.full(5, 7.0), np.full(5, -3.0)])
    low, high = choose_range(histogram_of(values), Calibration.PERCENTILE)
    assert low == pytest.approx(-3.0, abs=0.02)
    assert high == pytest.approx(7.0, abs=0.02)


@pytest.mark.parametrize("method", [Calibration.MSE, Calibration.PERCENTILE, Calibration.ENTROPY])
def test_a_lone_outlier_does_not_set_the_range(method: Calibration) -> None:
    values = np.concatenate([normal(1_000_000), [30.0]])
    low, high = choose_range(histogram_of(values), method)
    assert high < 20.0
    assert low < -1.0
    assert choose_range(histogram_of(values), Calibration.MINMAX)[1] == 30.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("method", [Calibration.MSE, Calibration.ENTROPY])
def test_an_outlier_on_one_side_does_not_cut_the_other(method: Calibration, sign: float) -> None:
    bulk = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    low, high = choose_range(histogram_of(sign * np.append(bulk, -30.0)), method)
    near, far = (high, -low) if sign > 0 else (-low, high)
    assert near > 0.9
    assert far < 20.0


def test_one_large_value_among_few_stays_in_the_mse_range() -> None:
    """Clipping 40 to half would cost more than rounding the rest coarsely does."""
    values = np.concatenate([np.linspace(0, 1, 20), [40.0]])
    assert choose_range(histogram_of(values), Calibration.MSE)[1] > 35.0


@given(
    seed=st.integers(0, 10_000),
    outlier=st.floats(1.0, 200.0),
    shift=st.floats(-3.0, 3.0),
    tail=st.sampled_from(["normal", "laplace", "relu"]),
)
@settings(max_examples=60, deadline=None)
def test_mse_is_never_worse_than_minmax(seed: int, outlier: float, shift: float, tail: str) -> None:
    generator = np.random.default_rng(seed)
    drawn = generator.laplace(size=2000) if tail == "laplace" else generator.normal(size=2000)
    values = np.append(np.maximum(drawn, 0) if tail == "relu" else drawn + shift, outlier)
    histogram = histogram_of(values)
    chosen = choose_range(histogram, Calibration.MSE)
    plain = choose_range(histogram, Calibration.MINMAX)
    assert own_error(histogram, chosen) <= own_error(histogram, plain)
    assert error_of(values, chosen) <= 1.05 * error_of(values, plain)


def own_error(histogram: Histogram, chosen: tuple[float, float]) -> float:
    """The criterion, written out again: rounding to 256 levels over the range, and clipping."""
    low, high = chosen
    scale = (high - low) / 255
    zero_point = int(np.rint(-128 - low / scale))
    centres, counts = histogram.centres(), histogram.counts
    error = 0.0
    for centre, count in zip(centres[counts > 0], counts[counts > 0], strict=True):
        step = min(max(round(centre / scale) + zero_point, -128), 127)
        error += count * ((step - zero_point) * scale - centre) ** 2
    return float(error / counts.sum())


def test_quantization_error_is_the_written_out_sum() -> None:
    histogram = histogram_of(normal(3000, seed=4))
    found = quantization_error(histogram, 4 / 255, int(np.rint(-128 + 1.5 * 255 / 4)))
    assert found == pytest.approx(own_error(histogram, (-1.5, 2.5)), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_every_range_holds_zero_and_stays_inside_what_was_seen(
    method: Calibration, seed: int
) -> None:
    values = normal(5000, seed) * 10.0 ** (seed - 2) + (seed - 1)
    low, high = choose_range(histogram_of(values), method)
    assert min(values.min(), 0) * (1 + 1e-6) <= low <= 0.0 <= high
    assert high <= max(values.max(), 0) * (1 + 1e-6)
    assert low < high


@pytest.mark.parametrize("method", METHODS)
def test_an_all_negative_tensor_reaches_up_to_zero(method: Calibration) -> None:
    low, high = choose_range(histogram_of(-np.abs(normal(5000)) - 1), method)
    assert high == 0.0
    assert low < -2.0


def test_entropy_prefers_the_bulk_of_a_long_tail() -> None:
    """On a wide plateau with sparse far values, KL cuts the sparse ones off."""
    values = np.concatenate([np.random.default_rng(1).uniform(0, 1, 50_000), [9.0, 9.5, 10.0]])
    assert choose_range(histogram_of(values), Calibration.ENTROPY)[1] < 5.0


def test_entropy_is_not_drawn_to_the_spike_that_a_relu_leaves_at_zero() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=20_000))
    spiked = np.concatenate([values, np.zeros(60_000)])
    low, high = choose_range(observe(empty_histogram(), spiked), Calibration.ENTROPY)
    assert low == 0.0
    assert high == choose_range(observe(empty_histogram(), values), Calibration.ENTROPY)[1]
    assert high > 0.5 * values.max()
