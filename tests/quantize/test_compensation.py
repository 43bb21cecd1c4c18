"""Compensated rounding: one of two neighbours, and never a larger error than nearest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.compensation import SCALES, SHORT, compensated_weights, output_error
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.weights import pair_scales, round_weights, weight_scales
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array
from deploykit.spec.pairs import LARGEST_PAIR, pair_sums
from deploykit.spec.plan import Rounding

SHAPES = {
    "pointwise": ((12, 40, 1, 1), 40),
    "first layer": ((8, 3, 3, 3), 3),
    "depthwise": ((10, 1, 3, 3), 10),
    "two outputs a channel": ((20, 1, 5, 5), 10),
    "grouped": ((12, 6, 3, 3), 18),
    "linear": ((5, 48), 48),
    "one input channel a block": ((4, 160, 3, 3), 160),
}


def layer(name: str, seed: int = 0) -> tuple[Float64Array, InputMoments]:
    """A weight, and second moments of inputs that are correlated and not negative."""
    shape, channels = SHAPES[name]
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=shape)
    blocking = blocking_of(weight, channels)
    blocks, _, size = blocking.split(weight).shape
    common = rng.normal(size=(blocks, 4 * size, 1))
    inputs = np.maximum(common + rng.normal(size=(blocks, 4 * size, size)), 0.0)
    moments = inputs.transpose(0, 2, 1) @ inputs / (4 * size)
    return weight, InputMoments(blocking, moments.astype(np.float32), 4 * size)


def least_scales(weight: Float64Array) -> Float32Array:
    return weight_scales(weight, np.zeros(len(weight)), 0.1, 0.1, 8)


def in_steps(weight: Float64Array, scale: Float32Array) -> Float64Array:
    wide = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.asarray(weight / wide)


def errors(
    weight: Float64Array, integers: Int8Array, scale: Float32Array, moments: InputMoments
) -> Float64Array:
    """Of every block's rows, in real units."""
    wide = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = moments.blocking.split(integers * wide - weight)
    return output_error(error, moments.trusted())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SHAPES)
def test_every_integer_is_a_neighbour_of_its_weight(name: str, seed: int) -> None:
    weight, moments = layer(name, seed)
    integers, scale = compensated_weights(weight, least_scales(weight), moments, 8)
    steps = in_steps(weight, scale)
    assert integers.shape == weight.shape
    assert np.all((integers == np.floor(steps)) | (integers == np.ceil(steps)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SHAPES)
def test_no_row_errs_more_than_rounded_to_the_nearest_and_all_together_less(
    name: str, seed: int
) -> None:
    weight, moments = layer(name, seed)
    least = least_scales(weight)
    nearest = errors(weight, round_weights(weight, least, 8), least, moments)
    found = errors(weight, *compensated_weights(weight, least, moments, 8), moments)
    assert np.all(found <= nearest * (1 + 1e-6))
    assert found.sum() < 0.9 * nearest.sum()


@pytest.mark.parametrize("name", SHAPES)
def test_scales_grow_in_short_rows_only(name: str) -> None:
    weight, moments = layer(name)
    least = least_scales(weight)
    _, scale = compensated_weights(weight, least, moments, 8)
    if moments.blocking.parts == 1 and weight[0].size <= SHORT:
        assert np.all((scale >= least) & (scale <= least * np.float32(SCALES[-1])))
        assert np.any(scale > least)
    else:
        np.testing.assert_array_equal(scale, least)


def test_a_short_row_comes_close_to_the_best_of_all_choices() -> None:
    weight, moments = layer("depthwise")
    integers, scale = compensated_weights(weight, least_scales(weight), moments, 8)
    low = np.floor(in_steps(weight, scale)).reshape(len(weight), -1)
    choices = np.array(list(itertools.product((0, 1), repeat=low.shape[1])))
    every = low[:, None, :] + choices - in_steps(weight, scale).reshape(len(weight), 1, -1)
    best = output_error(every, moments.trusted()).min(axis=1) * scale.astype(np.float64) ** 2
    found = errors(weight, integers, scale, moments)[:, 0]
    assert np.all(found >= best * (1 - 1e-5))
    assert found.sum() < 1.2 * best.sum()


def test_inputs_that_do_not_correlate_leave_every_weight_at_the_nearest() -> None:
    weight, moments = layer("pointwise")
    diagonal = np.diag(np.arange(1, 41)).astype(np.float32)[None]
    alone = InputMoments(moments.blocking, diagonal, 1000)
    integers, scale = compensated_weights(weight, least_scales(weight), alone, 8)
    np.testing.assert_array_equal(integers, round_weights(weight, scale, 8))


def test_weights_that_no_input_ever_reaches_stay_at_the_nearest() -> None:
    weight, moments = layer("depthwise")
    silent = InputMoments(moments.blocking, np.zeros_like(moments.blocks), 1000)
    integers, scale = compensated_weights(weight, least_scales(weight), silent, 8)
    np.testing.assert_array_equal(integers, round_weights(weight, scale, 8))


def test_whole_numbers_and_zeros_stay_as_they_are() -> None:
    weight, moments = layer("linear")
    whole = np.rint(weight * 20)
    whole[:, 0], whole[3] = 127, 0
    integers, scale = compensated_weights(whole, least_scales(whole), moments, 8)
    np.testing.assert_array_equal(integers[:3], whole[:3])
    assert not integers[3].any()
    assert scale[0] == 1.0


@pytest.mark.parametrize("blocking", [Blocking(2, 1), Blocking(2, 3)])
def test_joining_undoes_splitting(blocking: Blocking) -> None:
    weight = np.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2)
    np.testing.assert_array_equal(blocking.join(blocking.split(weight), weight.shape), weight)


def test_a_block_holds_the_weights_of_its_input_channels() -> None:
    weight = np.arange(4 * 3 * 2).reshape(4, 3, 2)
    patches = np.arange(6 * 2).reshape(1, 6, 2)
    blocking = Blocking(2, 3)
    assert blocking.split(weight)[4].tolist() == [[14, 15], [20, 21]]
    assert blocking.split_inputs(patches)[4].tolist() == [[8, 9]]


@pytest.mark.parametrize("name", ["pointwise", "first layer", "grouped", "linear"])
def test_pairs_that_are_added_in_16_bits_still_fit(name: str) -> None:
    weight, moments = layer(name)
    alike = np.abs(weight)
    _, channels = SHAPES[name]
    groups = channels // weight.shape[1]
    fitting = pair_scales(alike, groups, Rounding.COMPENSATED)
    least = np.maximum(least_scales(alike), fitting)
    assert np.all(least == fitting)
    integers, _ = compensated_weights(alike, least, moments, 8)
    assert pair_sums(integers, groups).max() <= LARGEST_PAIR
