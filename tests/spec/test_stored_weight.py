"""Rounded weights say their own integers, whatever was cut or turned since."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.spec.stored_weight import rounded_weight, stored_weight


@given(st.integers(0, 2**32), st.integers(4, 40), st.floats(1e-30, 1e30), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_every_bit_comes_back(seed: int, rows: int, size: float, axis: int) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(rows, 128)) * size).astype(np.float32)
    rounded = rounded_weight(weight, axis)
    for turned in (rounded, rounded.T, rounded[: rows // 2] if axis == 0 else rounded[:, :64]):
        stored = stored_weight(np.ascontiguousarray(turned))
        if turned.size < 256:
            continue
        assert stored is not None
        shape = [1, 1]
        shape[stored.axis] = -1
        again = stored.values.astype(np.float32) * stored.scale.reshape(shape)
        np.testing.assert_array_equal(again, turned)


def test_rounding_moves_by_half_a_step_at_most() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 200)).astype(np.float32)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(rounded_weight(weight, 0) - weight) <= 0.5001 * step).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.ones((4, 100), np.float32)
    weight[2] = 0
    rounded = rounded_weight(weight, 0)
    assert not rounded[2].any()
    np.testing.assert_allclose(rounded, weight, rtol=1e-4)


@pytest.mark.parametrize("shape", [(300,), (4, 4)])
def test_vectors_and_small_weights_stay_floats(shape: tuple[int, ...]) -> None:
    assert stored_weight(np.ones(shape, np.float32)) is None


def test_a_weight_that_was_not_rounded_stays_a_float() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    assert stored_weight(weight) is None


def test_rows_whose_largest_number_is_cut_off_come_back() -> None:
    """As when one scale serves both directions of a recurrent layer, and each is written apart."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(24, 200)).astype(np.float32)
    weight[:, :100] *= 3
    cut = rounded_weight(weight, 0)[:, 100:]
    stored = stored_weight(np.ascontiguousarray(cut))
    assert stored is not None
    assert stored.axis == 0
    assert np.abs(stored.values).max() < 127
    np.testing.assert_array_equal(stored.values * stored.scale[:, None], cut)
