"""Elementwise operators of the float evaluator, one line of maths each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from deploykit.reference.float_node import (
    FloatNode,
    Inputs,
    Rule,
    every,
    given,
    optional,
    scalar,
)
from deploykit.spec.arrays import AnyArray


def unary(function: Callable[[AnyArray, FloatNode], AnyArray]) -> Rule:
    """A rule of one input."""
    return lambda node, inputs: np.asarray(function(given(node, inputs, 0), node))


def binary(function: Callable[[AnyArray, AnyArray], AnyArray]) -> Rule:
    """A rule of two inputs, broadcast as numpy does."""
    return lambda node, inputs: np.asarray(function(given(node, inputs, 0), given(node, inputs, 1)))


def folded(function: Callable[[AnyArray, AnyArray], AnyArray]) -> Rule:
    """A rule of any number of inputs, taken from the left."""

    def rule(node: FloatNode, inputs: Inputs) -> AnyArray:
        first, *others = every(node, inputs)
        for other in others:
            first = np.asarray(function(first, other))
        return first

    return rule


def mean(node: FloatNode, inputs: Inputs) -> AnyArray:
    """(x1 + ... + xn) / n."""
    return np.asarray(folded(np.add)(node, inputs)) / len(inputs)


def divide(left: AnyArray, right: AnyArray) -> AnyArray:
    """Division; of integers towards zero."""
    if left.dtype.kind == "f":
        return np.asarray(left / right)
    quotient = np.abs(left) // np.abs(right)
    return np.asarray(quotient * np.sign(left) * np.sign(right), dtype=left.dtype)


def modulo(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The remainder, with the divisor's sign, or with fmod the dividend's."""
    function = np.fmod if node.integer("fmod", 0) else np.mod
    return np.asarray(function(given(node, inputs, 0), given(node, inputs, 1)))


def power(left: AnyArray, right: AnyArray) -> AnyArray:
    """x ** y in the type of x."""
    return np.asarray(np.power(left, right)).astype(left.dtype, copy=False)


def clip(node: FloatNode, inputs: Inputs) -> AnyArray:
    """max(x, low), then min of that and high; bounds are attributes before opset 11."""
    low, high = scalar(inputs, 1), scalar(inputs, 2)
    if low is None and node.has("min"):
        low = node.number("min", 0.0)
    if high is None and node.has("max"):
        high = node.number("max", 0.0)
    values = given(node, inputs, 0)
    return values if low is None and high is None else np.clip(values, low, high)


def where(node: FloatNode, inputs: Inputs) -> AnyArray:
    """x where the condition holds, else y."""
    return np.where(given(node, inputs, 0), given(node, inputs, 1), given(node, inputs, 2))


def cast(node: FloatNode, inputs: Inputs) -> AnyArray:
    """To an integer type towards zero, to booleans by x != 0, to any float type the evaluator's."""
    values = given(node, inputs, 0)
    target = ir.DataType(node.integer("to", 0))
    if target.is_floating_point():
        return values.astype(np.float64, copy=False) if values.dtype.kind != "f" else values
    if target not in CAST_TYPES:
        raise node.refuse(f"it casts to {target.name}")
    return values.astype(target.numpy())


CAST_TYPES = frozenset(
    {
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
"""Types other than floats that a Cast reaches."""


def dropout(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, ...]:
    """Nothing, at inference, and a mask that keeps everything."""
    training = optional(inputs, 2)
    if training is not None and bool(training.any()):
        raise node.refuse("it is in training mode")
    values = given(node, inputs, 0)
    return values, np.ones(values.shape, dtype=np.bool_)
