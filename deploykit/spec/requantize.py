"""The float32 number that takes a weighted layer's integer sums to its output's steps."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Float32Array


def multiplier(input_scale: float, weight_scale: Float32Array, output_scale: float) -> Float32Array:
    """(sx * sw) / sy in float32, left to right; sx * (sw / sy) already rounds differently."""
    product = np.float32(input_scale) * weight_scale.astype(np.float32)
    return np.asarray(product / np.float32(output_scale), dtype=np.float32)
