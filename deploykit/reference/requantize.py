"""From exact integer sums and products to int8, by one float32 multiplication."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array
from deploykit.spec.quantized import Quantization, int_range


def requantize(sums: AnyArray, scale: Float32Array, into: Quantization) -> Int8Array:
    """clip(rint(float32(sums) * scale) + zero point), half to even, for integers of any dtype."""
    low, high = int_range(into.bits)
    steps = sums.astype(np.float32)
    steps *= scale
    np.rint(steps, out=steps)
    steps += np.float32(into.zero_point)
    np.clip(steps, low, high, out=steps)
    return steps.astype(np.int8)
