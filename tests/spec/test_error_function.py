"""The error function against the C library's."""

from __future__ import annotations

import math

import numpy as np

from deploykit.spec.error_function import BLOCK_ELEMENTS, erf


def test_it_is_within_two_units_in_the_last_place_everywhere() -> None:
    edges = np.array([0.84375, 1.25, 1 / 0.35, 6.0, 1e-300, 5e-324, 0.0])
    near = np.concatenate([np.nextafter(edges, 0), edges, np.nextafter(edges, 10)])
    values = np.concatenate([near, -near, np.linspace(-7, 7, 3 * BLOCK_ELEMENTS)])
    expected = np.array([math.erf(value) for value in values])
    np.testing.assert_allclose(erf(values), expected, rtol=4.5e-16, atol=0)


def test_what_is_not_finite() -> None:
    np.testing.assert_array_equal(erf(np.array([np.inf, -np.inf, np.nan])), [1, -1, np.nan])


def test_the_type_and_the_shape_stay() -> None:
    found = erf(np.full((2, 3), 0.5, np.float32))
    assert found.dtype == np.float32
    assert found.shape == (2, 3)
    assert found[0, 0] == np.float32(math.erf(0.5))
