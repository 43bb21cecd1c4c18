"""The 256 integers of a real function.

    table[q] = clip(rint(float32(f(sx * (q - zx))) / sy) + zy, -128, 127)

f in float64 of the float32 input, its result rounded to float32 as the runtimes have it; the
division float32, rint half to even. Runtimes compute f in float32 by approximations of their own:
where one of them lands on the other side of a rounding, the planner moves the scale or says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from deploykit.spec.arrays import Float64Array, Int8Array
from deploykit.spec.error_function import erf
from deploykit.spec.operators import Function
from deploykit.spec.quantized import Quantization

STATED = re.compile(r"/(power|thresholded)=(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$")
"""What called_table writes of a function with a parameter."""

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


def _power(x: Float64Array, exponent: float) -> Float64Array:
    """x^e; of an exponent that is not whole, a negative x counts as 0."""
    base = x if float(exponent).is_integer() else np.maximum(x, 0.0)
    return np.asarray(np.power(base, exponent))


def _thresholded(x: Float64Array, threshold: float) -> Float64Array:
    return np.asarray(np.where(x > threshold, x, 0.0))


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


WITH_PARAMETER: Mapping[Function, Callable[[Float64Array, float], Float64Array]] = {
    Function.POWER: _power,
    Function.THRESHOLDED: _thresholded,
}


def table(
    function: Function, source: Quantization, into: Quantization, parameter: float = 0.0
) -> Int8Array:
    """[256] int8: the function's integer for -128, -127, ..., 127."""
    real = source.dequantize(EVERY_INTEGER).astype(np.float64)
    with np.errstate(over="ignore", divide="ignore"):
        if function in WITH_PARAMETER:
            single = WITH_PARAMETER[function](real, parameter).astype(np.float32)
        else:
            single = FUNCTIONS[function](real).astype(np.float32)
    return into.quantize(single)


def called_table(function: Function, parameter: float) -> str:
    """How the name of a table's constant ends. called_table(Function.POWER, 0.5) -> "power=0.5\""""
    return f"{function.value}={parameter!r}" if function in WITH_PARAMETER else function.value


def function_of_table(
    entries: Int8Array, source: Quantization, into: Quantization, called: str
) -> tuple[Function, float] | None:
    """The function that 256 integers are the table of, and its parameter; None where they are none.

    Of several whose tables are equal, the one that the constant's name ends with, if any. One with
    a parameter is known by that name alone.
    """
    stated = STATED.search(called)
    if stated is not None:
        function, parameter = Function(stated[1]), float(stated[2])
        found = table(function, source, into, parameter)
        return (function, parameter) if np.array_equal(found, entries) else None
    alike = [one for one in FUNCTIONS if np.array_equal(table(one, source, into), entries)]
    named = [one for one in alike if called.endswith(f"/{one.value}")]
    first = next(iter((*named, *alike)), None)
    return None if first is None else (first, 0.0)
