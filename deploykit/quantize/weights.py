"""Integer weights and biases: symmetric, one scale per output channel."""

from __future__ import annotations

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array, Int32Array
from deploykit.spec.pairs import LARGEST_PAIR, pair_sums
from deploykit.spec.plan import Rounding
from deploykit.spec.quantized import int_range

ACCUMULATOR_BITS = 31
"""Of a sum of products, its sign apart."""

SMALLEST_MULTIPLIER = 2.0**-31
"""XNNPACK takes requantization multipliers from 2^-32; twice that leaves room for rounding."""

LARGEST_RATIO = 128.0
"""XNNPACK takes ratios of input to output scale up to 256; half of that leaves room."""


def weight_scales(
    weight: Float64Array, bias: Float64Array, input_scale: float, output_scale: float, bits: int
) -> Float32Array:
    """scale[o] = max |W[o]| / (2^(bits-1) - 1)   [O]

    Raised where the bias would not fit int32 at that scale, or where the requantization multiplier
    input_scale * scale / output_scale would fall under what a runtime accepts. A row of zeros
    takes the largest scale of the layer.
    """
    _, highest = int_range(bits)
    largest = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    whole = float(largest.max(initial=0.0))
    filled = np.where(largest > 0, largest, whole if whole > 0 else 1.0)
    scale = np.maximum(filled / highest, smallest_scales(bias, input_scale, output_scale, bits))
    return scale.astype(np.float32)


def smallest_scales(
    bias: Float64Array, input_scale: float, output_scale: float, bits: int
) -> Float64Array:
    """[O], at which biases fit accumulators and runtimes take the requantization multiplier.

    bits: of the weights. Half of an accumulator is left to the products.
    """
    for_bias = np.abs(bias) / (input_scale * 2.0 ** (accumulator_bits(bits) - 1))
    return np.maximum(for_bias, SMALLEST_MULTIPLIER * output_scale / input_scale)


def accumulator_bits(bits: int) -> int:
    """Of the largest sum of products and bias, for weights of so many bits.

    XNNPACK multiplies by 4-bit weights 16 times as large, in their place of a byte, and by 2-bit
    ones 64 times: int32 holds that much less.
    """
    return ACCUMULATOR_BITS - (6 if bits <= 2 else 4 if bits <= 4 else 0)


def pair_scales(weight: Float64Array, groups: int, rounding: Rounding) -> Float32Array:
    """Smallest scale at which no pair of rounded weights exceeds LARGEST_PAIR.   [O]

    Rounding to nearest moves a sum of two by at most 1, so a sum of reals under LARGEST_PAIR is
    an integer sum of at most that; compensated rounding moves it by less than 2, so there the sum
    of reals stays 1 lower. The factor holds it under, float32 scales included.
    """
    most = LARGEST_PAIR + 1 - 2 * rounding.reach
    return np.asarray(pair_sums(weight, groups) / most * (1 + 2.0**-20), np.float32)


def round_weights(weight: Float64Array, scale: Float32Array, bits: int) -> Int8Array:
    """clip(rint(W / scale), -(2^(bits-1) - 1), 2^(bits-1) - 1): the range without its lowest value.

    The lowest value stays out so that -w is representable whenever w is.
    """
    _, highest = int_range(bits)
    divisor = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.clip(np.rint(weight / divisor), -highest, highest).astype(np.int8)


def round_bias(
    name: str,
    bias: Float64Array,
    weight: Int8Array,
    input_scale: float,
    scale: Float32Array,
    bits: int,
) -> Int32Array:
    """rint(b / (input_scale * scale[o]))   [O]

    Raises QuantizationError where bias and products together could overflow an accumulator.
    """
    steps = np.rint(bias / (np.float64(np.float32(input_scale)) * scale.astype(np.float64)))
    products = 255.0 * np.abs(weight.astype(np.float64)).reshape(len(steps), -1).sum(axis=1)
    if np.any(np.abs(steps) + products > 2 ** accumulator_bits(bits) - 1):
        channel = int(np.argmax(np.abs(steps) + products))
        raise QuantizationError(
            f"{name}: output channel {channel} can overflow a 32-bit accumulator "
            f"({weight[channel].size} products); split the layer{_or_wider(bits)}"
        )
    return steps.astype(np.int32)


def _or_wider(bits: int) -> str:
    return ", or give it 8 bits (--layer-bits)" if bits <= 4 else ""
