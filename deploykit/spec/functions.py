"""The 256 integers of a real function.

    table[q] = clip(rint(float32(f(sx * (q - zx))) / sy) + zy, -128, 127)

f in float64 of the float32 input, its result rounded to float32 as the runtimes have it; the
division float32, rint half to even. Runtimes compute f in float32 by approximations of their own:
where one of them lands on the other side of a rounding, the planner moves the scale or says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.spec.arrays import Float64Array, Int8Array
from deploykit.spec.error_function import erf
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


def _softplus(x: Float64Array) -> Float64Array:
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


LARGEST_EXPONENT = 700.0
"""exp of it is far beyond float32, and still a float64."""


FUNCTIONS: Mapping[Function, Callable[[Float64Array], Float64Array]] = {
    Function.SIGMOID: _sigmoid,
    Function.TANH: lambda x: np.asarray(np.tanh(x)),
    Function.ELU: _elu,
    Function.GELU: _gelu,
    Function.GELU_TANH: _gelu_tanh,
    Function.EXP: lambda x: np.asarray(np.exp(np.minimum(x, LARGEST_EXPONENT))),
    Function.ERF: lambda x: np.asarray(erf(x)),
    Function.MISH: lambda x: np.asarray(x * np.tanh(_softplus(x))),
    Function.SOFTPLUS: _softplus,
    Function.SOFTSIGN: lambda x: np.asarray(x / (1.0 + np.abs(x))),
}


def table(function: Function, source: Quantization, into: Quantization) -> Int8Array:
    """[256] int8: the function's integer for -128, -127, ..., 127."""
    real = source.dequantize(EVERY_INTEGER).astype(np.float64)
    with np.errstate(over="ignore"):
        single = FUNCTIONS[function](real).astype(np.float32)
    return into.quantize(single)


def function_of_table(
    entries: Int8Array, source: Quantization, into: Quantization, called: str
) -> Function | None:
    """The function that 256 integers are the table of; None where they are no function's.

    Of several whose tables are equal, the one that the constant's name ends with, if any.
    """
    alike = [one for one in Function if np.array_equal(table(one, source, into), entries)]
    named = [one for one in alike if called.endswith(f"/{one.value}")]
    return next(iter((*named, *alike)), None)
