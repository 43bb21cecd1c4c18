"""The requantization multiplier, rounded as the runtimes round it."""

from __future__ import annotations

import numpy as np

from deploykit.spec.requantize import multiplier


def test_the_multiplier_is_rounded_after_every_step() -> None:
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.001, 0.1, (3, 1000)).astype(np.float32)
    found = multiplier(float(scales[0, 0]), scales[1], float(scales[2, 0]))
    for weight_scale, one in zip(scales[1], found, strict=True):
        expected = (scales[0, 0] * weight_scale) / scales[2, 0]
        assert one == expected
        assert one.dtype == np.float32
