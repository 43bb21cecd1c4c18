"""Integer weights and biases against a loop over every number, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import QuantizationError
from deploykit.quantize.weights import (
    SMALLEST_MULTIPLIER,
    pair_scales,
    round_bias,
    round_weights,
    weight_scales,
)
from deploykit.spec.arrays import Float64Array
from deploykit.spec.pairs import LARGEST_PAIR, pair_sums
from deploykit.spec.plan import Rounding


def drawn(seed: int, *shape: int) -> Float64Array:
    return np.random.default_rng(seed).standard_normal(shape)


@given(
    seed=st.integers(0, 1000), outputs=st.integers(1, 5), inputs=st.integers(1, 4),
    bits=st.sampled_from([8, 4, 2]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_weights_equal_a_loop_over_every_number(
    seed: int, outputs: int, inputs: int, bits: int
) -> None:
    weight = drawn(seed, outputs, inputs, 3, 2)
    scale = weight_scales(weight, np.zeros(outputs), 0.02, 0.05, bits)
    values = round_weights(weight, scale, bits)
    highest = 2 ** (bits - 1) - 1
    for o in range(outputs):
        largest = max(abs(number) for number in weight[o].flat)
        assert scale[o] == np.float32(largest / highest)
        for index, number in np.ndenumerate(weight[o]):
            step = min(max(round(number / float(scale[o])), -highest), highest)
            assert values[(o, *index)] == step
    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).reshape(outputs, -1).max(axis=1).tolist() == (
        [highest] * outputs
    )


def test_halves_round_to_even() -> None:
    weight = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    assert round_weights(weight, np.ones(1, np.float32), 8).tolist() == [[127, 0, 2, 2, 0, -2]]


def test_a_row_of_zeros_takes_the_largest_scale_of_the_layer() -> None:
    weight = np.array([[0.0, 0.0], [1.27, 0.1], [0.5, -2.54]])
    scale = weight_scales(weight, np.zeros(3), 1.0, 1.0, 8)
    assert scale[0] == scale[2] == np.float32(0.02)
    assert round_weights(weight, scale, 8)[0].tolist() == [0, 0]


def test_a_layer_of_zeros_gets_a_legal_scale() -> None:
    scale = weight_scales(np.zeros((2, 3)), np.zeros(2), 1.0, 1.0, 8)
    assert np.all(scale == np.float32(1 / 127))


def test_a_huge_bias_raises_the_scale_until_it_fits() -> None:
    weight, bias = np.array([[1e-6], [1.0]]), np.array([5000.0, 5000.0])
    scale = weight_scales(weight, bias, 1e-3, 1.0, 8)
    assert scale[0] == np.float32(5000.0 / (1e-3 * 2**30))
    assert scale[1] == np.float32(1 / 127)
    values = round_weights(weight, scale, 8)
    integers = round_bias("fc", bias, values, 1e-3, scale, 8)
    restored = integers * (1e-3 * scale.astype(float))
    np.testing.assert_allclose(restored, bias, rtol=1e-6)


@pytest.mark.parametrize("smallest", [1e-30, 1e-12])
def test_the_multiplier_stays_where_a_runtime_accepts_it(smallest: float) -> None:
    weight = np.array([[smallest], [1.0]])
    scale = weight_scales(weight, np.zeros(2), 0.01, 50.0, 8)
    multipliers = np.float32(np.float32(0.01) * scale) / np.float32(50.0)
    assert np.all(multipliers >= SMALLEST_MULTIPLIER * 0.999)
    assert np.all(multipliers > 2.0**-32)


def test_bias_equals_a_loop() -> None:
    bias, scale = drawn(2, 6) * 10, np.abs(drawn(3, 6)).astype(np.float32) + np.float32(0.1)
    weight = np.ones((6, 4), np.int8)
    found = round_bias("fc", bias, weight, 0.02, scale, 8)
    for o in range(6):
        assert found[o] == round(bias[o] / (float(np.float32(0.02)) * float(scale[o])))
    assert found.dtype == np.int32


def test_an_accumulator_that_can_overflow_is_refused_by_channel() -> None:
    """2^31 / (255 * 127) = 66,311 products of the largest size fit."""
    fits, overflows = np.full((2, 66_000), 127, np.int8), np.full((2, 66_400), 127, np.int8)
    overflows[0] = 0
    bias, scale = np.zeros(2), np.ones(2, np.float32)
    assert round_bias("fc", bias, fits, 1.0, scale, 8).tolist() == [0, 0]
    with pytest.raises(QuantizationError, match=r"^fc: output channel 1 can overflow .*66400"):
        round_bias("fc", bias, overflows, 1.0, scale, 8)


def test_a_bias_counts_towards_the_overflow() -> None:
    weight = np.full((1, 40_000), 127, np.int8)
    with pytest.raises(QuantizationError, match="channel 0 can overflow"):
        round_bias("fc", np.array([-1.0e9]), weight, 1.0, np.ones(1, np.float32), 8)


@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 6), kernel=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_no_rounded_pair_exceeds_the_largest_that_fits(seed: int, inputs: int, kernel: int) -> None:
    """Halves included: multiples of half a step of the scale that is chosen."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-256, 257, (3, inputs, kernel, kernel)) / 256.0
    full = weight_scales(weight, np.zeros(3), 1.0, 1.0, 8)
    scale = np.maximum(full, pair_scales(weight, 1, Rounding.NEAREST))
    assert pair_sums(round_weights(weight, scale, 8), 1).max() <= LARGEST_PAIR


def test_a_channel_whose_pairs_fit_keeps_its_scale_and_another_loses_what_it_must() -> None:
    weight = np.array([[127.0, 1.0, -60.0, -68.0], [127.0, -127.0, 3.0, 0.0],
                       [96.0, 64.0, 0.0, 127.0]])  # fmt: skip
    found = np.maximum(
        weight_scales(weight, np.zeros(3), 1.0, 1.0, 8), pair_scales(weight, 1, Rounding.NEAREST)
    )
    np.testing.assert_allclose(found, [1.0, 1.0, 160 / 128], rtol=2.0**-19)


def test_a_depthwise_layer_loses_nothing() -> None:
    assert pair_scales(np.ones((4, 1, 3, 3)), 4, Rounding.NEAREST).tolist() == [0.0] * 4


@pytest.mark.parametrize(("bits", "most"), [(8, 31), (6, 31), (5, 31), (4, 27), (3, 27), (2, 25)])
def test_narrow_weights_leave_accumulators_what_shifted_ones_do(bits: int, most: int) -> None:
    scale = weight_scales(np.full((1, 4), 1e-12), np.array([1.0]), 0.01, 1.0, bits)
    weight = round_weights(np.full((1, 4), 1e-12), scale, bits)
    (found,) = round_bias("fc", np.array([1.0]), weight, 0.01, scale, bits)
    assert abs(int(found)) <= 2 ** (most - 1) * (1 + 1e-6)
    over = np.array([2.0 ** (most + 1)])
    with pytest.raises(QuantizationError, match="can overflow a 32-bit accumulator"):
        round_bias("fc", over, weight, 1.0, np.ones(1, np.float32), bits)
