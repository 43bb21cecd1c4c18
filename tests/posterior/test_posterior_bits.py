"""Bits that a layer's variance asks for."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.posterior.describe import posterior_bits


@pytest.mark.parametrize(
    ("mean", "variance", "bits"),
    [
        ([1.0, -1.0], [2.0**-9, 2.0**-9], 1 + 7),  # 2 s^2 = 2^-8: t = 7, 1 / 2^-7 = 2^7
        ([0.5, 0.25], [2.0**-9, 2.0**-9], 1 + 6),
        ([1.0, 1.0], [2.0**-9, 2.0**-5], 1 + 5),  # t = 7 and 3
        ([1.0], [8.0], 1),  # no fraction at all, and a largest weight of one step
        ([3.0], [8.0], 1 + 2),
        ([0.0, 0.0], [1.0, 1.0], 1),
        ([1.0], [0.0], 1 + 23),
    ],
)
def test_bits_by_hand(mean: list[float], variance: list[float], bits: int) -> None:
    assert posterior_bits(np.array(mean), np.array(variance)) == bits
