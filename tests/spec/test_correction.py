"""What rounding adds on average is taken off again."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.spec.correction import corrected_bias


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_mean_output_stays_what_it_was(groups: int) -> None:
    """On inputs that are constant per channel, rounded and exact layers then agree."""
    rng = np.random.default_rng(groups)
    weight = rng.normal(size=(12, 6 // groups, 3, 3))
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 7).astype(np.float32)
    values = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    bias, means = rng.normal(size=12), rng.normal(size=6).astype(np.float32)
    corrected = corrected_bias(bias, weight, values, scale, means)
    for o in range(12):
        first = (o // (12 // groups)) * (6 // groups)
        exact = rounded = 0.0
        for i in range(6 // groups):
            exact += weight[o, i].sum() * means[first + i]
            rounded += (values[o, i] * np.float64(scale[o])).sum() * means[first + i]
        assert rounded + corrected[o] == pytest.approx(exact + bias[o], abs=1e-9)


def test_a_linear_layer_has_no_taps() -> None:
    weight = np.array([[0.3, -0.2], [1.0, 0.4]])
    values, scale = np.array([[3, -2], [2, 1]], np.int8), np.array([0.1, 0.5], np.float32)
    corrected = corrected_bias(
        np.zeros(2), weight, values, scale, np.array([2.0, -1.0], np.float32)
    )
    np.testing.assert_allclose(corrected, [0.0, 0.1], atol=1e-7)
