"""The 256 integers of a real function.

    table[q] = clip(rint(float32(f(sx * (q - zx))) / sy) + zy, -128, 127)

f in float64 of the float32 input, its result rounded to float32 as the runtimes have it; the
division float32, rint half to even. Runtimes compute f in float32 by approximations of their own:
where one of them lands on the other side of a rounding, the planner moves the scale or says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.reference.error_function import erf
from deploykit.spec.arrays import Float64Array, Int8Array
from deploykit.spec.operators import Function
from deploykit.spec.quantized import Quantization

EVERY_INTEGER: Int8Array = np.arange(-128, 128, dtype=np.int8)


SQRT_HALF = 0.5**0.5
SQRT_2_BY_PI = (2.0 / np.pi) ** 0.5


def _elu(x: Float64Array) -> Float64Array:
    return np.asarray(np.where(x < 0.0, np.expm1(np.minimum(x, 0.0)), x))


def _gelu(x: Float64Array) -> Float64Array:
    return np.asarray(0.5 * x * (1.0 + erf(SQRT_HALF * x)))


def _gelu_tanh(x: Float64Array) -> Float64Array:
    return np.asarray(0.5 * x * (1.0 + np.tanh(SQRT_2_BY_PI * (x + 0.044715 * x**3))))


def _sigmoid(x: Float64Array) -> Float64Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


FUNCTIONS: Mapping[Function, Callable[[Float64Array], Float64Array]] = {
    Function.SIGMOID: _sigmoid,
    Function.TANH: lambda x: np.asarray(np.tanh(x)),
    Function.ELU: _elu,
    Function.GELU: _gelu,
    Function.GELU_TANH: _gelu_tanh,
}


def table(function: Function, source: Quantization, into: Quantization) -> Int8Array:
    """[256] int8: the function's integer for -128, -127, ..., 127."""
    real = source.dequantize(EVERY_INTEGER).astype(np.float64)
    return into.quantize(FUNCTIONS[function](real).astype(np.float32))


def lookup(
    values: Int8Array, function: Function, source: Quantization, into: Quantization
) -> Int8Array:
    """The function of every element."""
    entries = table(function, source, into)
    return np.asarray(entries[values.astype(np.int16) + 128], dtype=np.int8)
