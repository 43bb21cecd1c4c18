"""Operators that know the integer for each of 256."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Int8Array
from deploykit.spec.functions import EVERY_INTEGER, table
from deploykit.spec.operators import Function
from deploykit.spec.quantized import Quantization


def lookup(
    values: Int8Array,
    function: Function,
    source: Quantization,
    into: Quantization,
    parameter: float = 0.0,
) -> Int8Array:
    """The function of every element."""
    entries = table(function, source, into, parameter)
    return np.asarray(entries[values.astype(np.int16) + 128], dtype=np.int8)


def leaky_relu(values: Int8Array, slope: int, quantization: Quantization) -> Int8Array:
    """XNNPACK's rule (src/configs/vlrelu, qs8): the product rounded half up.

    Equal steps above zero, where XNNPACK's other multiplier is 256/256. slope: in 1/256ths.
    """
    steps = EVERY_INTEGER.astype(np.int32) - quantization.zero_point
    below = steps * slope + 128 >> 8
    table = np.clip(np.where(steps < 0, below, steps) + quantization.zero_point, -128, 127)
    return np.asarray(table.astype(np.int8)[values.astype(np.int16) + 128], dtype=np.int8)
