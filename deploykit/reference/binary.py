"""Sums and products of two integer tensors whose shapes broadcast.

    Add    k  = 20 - floor(log2(max(sa / sy, sb / sy)))            quotients float32
           ma = rint((sa / sy) * 2**k), mb likewise                whole numbers
           y  = clip(floor(((a - za) * ma + (b - zb) * mb) / 2**k + 1/2) + zy, -128, 127)
    Sub    the same with -mb
    Mul    m  = (sa * sb) / sy                                     float32, in this order
           y  = clip(rint(float32((a - za) * (b - zb)) * m) + zy, -128, 127)

Both are XNNPACK's rules (src/microparams-init.c: qs8_add_minmax, qs8_mul_minmax), from which LiteRT
never differs. ONNX Runtime differs on 1e-5 of the pairs of a sum under free scales and on several
per cent under power-of-two ratios, where sums tie; on hardly any of a product. The planner moves
scales until both agree.
"""

from __future__ import annotations

import math

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.reference.requantize import requantize
from deploykit.spec.arrays import Int8Array
from deploykit.spec.quantized import Quantization, int_range

ADD_FRACTION_BITS = 20


def add(
    left: Int8Array,
    left_quantization: Quantization,
    right: Int8Array,
    right_quantization: Quantization,
    into: Quantization,
) -> Int8Array:
    """XNNPACK's sum: both sides in steps of 2**-k of the output, then rounded half up."""
    return _sum(left, left_quantization, right, right_quantization, into, 1)


def sub(
    left: Int8Array,
    left_quantization: Quantization,
    right: Int8Array,
    right_quantization: Quantization,
    into: Quantization,
) -> Int8Array:
    """XNNPACK's difference: its sum with the right side's steps negated."""
    return _sum(left, left_quantization, right, right_quantization, into, -1)


def _sum(
    left: Int8Array,
    left_quantization: Quantization,
    right: Int8Array,
    right_quantization: Quantization,
    into: Quantization,
    sign: int,
) -> Int8Array:
    """left + sign * right."""
    left_ratio = np.float32(left_quantization.scale) / np.float32(into.scale)
    right_ratio = np.float32(right_quantization.scale) / np.float32(into.scale)
    shift = ADD_FRACTION_BITS - (math.frexp(max(left_ratio, right_ratio))[1] - 1)
    if not 0 < shift < 52:
        raise QuantizationError(
            f"A sum of tensors with scales {left_quantization.scale:g} and "
            f"{right_quantization.scale:g} cannot be written with the scale {into.scale:g}; "
            "plan an output scale within a factor of 256 of the larger input scale."
        )
    left_steps = np.int64(round(math.ldexp(float(left_ratio), shift)))
    right_steps = np.int64(sign * round(math.ldexp(float(right_ratio), shift)))
    offset = (
        (np.int64(1) << np.int64(shift - 1))
        - left_steps * left_quantization.zero_point
        - right_steps * right_quantization.zero_point
    )
    sums = left * left_steps + right * right_steps
    sums += offset
    sums >>= shift
    sums += into.zero_point
    return np.asarray(np.clip(sums, *int_range(into.bits)), dtype=np.int8)


def mul(
    left: Int8Array,
    left_quantization: Quantization,
    right: Int8Array,
    right_quantization: Quantization,
    into: Quantization,
) -> Int8Array:
    """XNNPACK's product, exact before it is scaled."""
    a = left.astype(np.int32) - np.int32(left_quantization.zero_point)
    b = right.astype(np.int32) - np.int32(right_quantization.zero_point)
    product = np.float32(left_quantization.scale) * np.float32(right_quantization.scale)
    scale = np.asarray(product / np.float32(into.scale), dtype=np.float32)
    return requantize(a * b, scale, into)
