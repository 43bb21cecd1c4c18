"""A histogram holds the same counts however its values were batched, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.quantize.histogram import BINS, Histogram, empty_histogram, observe
from deploykit.spec.arrays import AnyArray, Float32Array

POWERS = st.integers(-40, 40).map(lambda exponent: float(2.0**exponent))
VALUES = st.one_of(
    st.floats(-(2.0**99), 2.0**99, width=32),
    st.floats(-4.0, 4.0, width=32),
    POWERS,
    POWERS.map(lambda value: -value),
    st.just(-1e-20),
)


def filled(*batches: AnyArray) -> Histogram:
    histogram = empty_histogram()
    for batch in batches:
        histogram = observe(histogram, batch)
    return histogram


def assert_equal(left: Histogram, right: Histogram) -> None:
    np.testing.assert_array_equal(left.counts, right.counts)
    assert (left.reach, left.low, left.high) == (right.reach, right.low, right.high)


@given(
    values=hnp.arrays(np.float32, st.integers(1, 30), elements=VALUES),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_any_split_in_any_order_gives_the_same_histogram(
    values: Float32Array, cuts: list[int], seed: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    whole = filled(values)
    assert_equal(filled(*np.split(shuffled, sorted(cuts))), whole)
    assert whole.counts.sum() == len(values)
    assert whole.counts.shape == (BINS,)


@given(values=hnp.arrays(np.float32, st.integers(1, 40), elements=VALUES))
@settings(max_examples=100, deadline=None)
def test_every_value_lies_in_its_bin(values: Float32Array) -> None:
    histogram = filled(values)
    width = 2.0 * histogram.reach / BINS
    for value in values.astype(np.float64):
        index = int(np.floor(value / width)) + BINS // 2
        low = -histogram.reach + index * width
        assert low <= value < low + width
        assert histogram.counts[index] > 0


@pytest.mark.parametrize(
    ("first", "then"),
    [(1.0, 2.0), (2.0, 1.0), (-1.0, -2.0), (1.0, -1e-20), (1024.0, 1023.999)],
)
def test_a_value_on_the_edge_of_the_reach_moves_with_it(first: float, then: float) -> None:
    one, two = np.array([first], np.float32), np.array([then], np.float32)
    assert_equal(filled(one, two), filled(np.concatenate([one, two])))
    assert_equal(filled(one, two), filled(two, one))


def test_doubling_adds_neighbours() -> None:
    before = filled(np.array([0.1, 0.3, 0.9, -0.7], np.float32))
    after = observe(before, np.array([3.0], np.float32))
    assert (before.reach, after.reach) == (1.0, 4.0)
    inner = before.counts.reshape(-1, 4).sum(axis=1)
    start = BINS // 2 - len(inner) // 2
    np.testing.assert_array_equal(after.counts[start : start + len(inner)], inner)
    assert after.counts.sum() == 5


def test_extremes_are_exact_and_hold_the_centres() -> None:
    histogram = filled(np.array([-0.30000001, 0.7, 0.2], np.float32))
    assert histogram.low == np.float32(-0.30000001)
    assert histogram.high == np.float32(0.7)
    centres = histogram.centres()
    assert centres.min() == histogram.low
    assert centres.max() == histogram.high


def test_at_least_a_quarter_of_the_bins_lies_inside_the_values() -> None:
    for largest in (1.0, 1.9999, 2.0, 3.5e8):
        histogram = filled(np.array([0.0, largest], np.float32))
        assert histogram.reach / 2 <= largest < histogram.reach


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite values only"):
        filled(np.array([1.0, value], np.float32))


def test_no_values_change_nothing() -> None:
    before = filled(np.array([1.0], np.float32))
    assert observe(before, np.zeros((0, 3), np.float32)) is before


def test_a_given_histogram_stays_as_it_is() -> None:
    before = filled(np.array([1.0], np.float32))
    kept = before.counts.copy()
    observe(before, np.array([1.0, 5.0], np.float32))
    np.testing.assert_array_equal(before.counts, kept)
