"""Elementwise and linear operators of the float evaluator, one line of maths each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, Rule, given, optional
from deploykit.spec.arrays import AnyArray


def unary(function: Callable[[AnyArray, FloatNode], AnyArray]) -> Rule:
    """A rule of one input."""
    return lambda node, inputs: np.asarray(function(given(node, inputs, 0), node))


def binary(function: Callable[[AnyArray, AnyArray], AnyArray]) -> Rule:
    """A rule of two inputs, broadcast as numpy does."""
    return lambda node, inputs: np.asarray(function(given(node, inputs, 0), given(node, inputs, 1)))


def sigmoid(values: AnyArray) -> AnyArray:
    """1 / (1 + exp(-x)), through tanh so that no exponential overflows."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def hard_sigmoid(values: AnyArray, node: FloatNode) -> AnyArray:
    """max(0, min(1, alpha * x + beta))."""
    scaled = node.number("alpha", 0.2) * values + node.number("beta", 0.5)
    return np.asarray(np.clip(scaled, 0.0, 1.0))


def clip(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Bounds are inputs, or attributes before opset 11."""
    low, high = optional(inputs, 1), optional(inputs, 2)
    lowest = node.number("min", -np.inf) if low is None else float(low.reshape(()))
    highest = node.number("max", np.inf) if high is None else float(high.reshape(()))
    values = given(node, inputs, 0)
    kind = values.dtype.type
    return np.asarray(np.minimum(np.maximum(values, kind(lowest)), kind(highest)))


def gemm(node: FloatNode, inputs: Inputs) -> AnyArray:
    """alpha * A' @ B' + beta * C, ' a transpose where asked."""
    left, right, addend = given(node, inputs, 0), given(node, inputs, 1), optional(inputs, 2)
    if node.integer("transA", 0):
        if node.samples is not None:
            raise node.refuse("it transposes the batch")
        left = left.T
    product = left @ (right.T if node.integer("transB", 0) else right)
    result = product if node.number("alpha", 1.0) == 1.0 else node.number("alpha", 1.0) * product
    return np.asarray(result if addend is None else result + node.number("beta", 1.0) * addend)


def batch_normalization(node: FloatNode, inputs: Inputs) -> AnyArray:
    """g * (x - m) / sqrt(var + eps) + t along axis 1, with the stored statistics."""
    if node.integer("training_mode", 0):
        raise node.refuse("it is in training mode")
    values = given(node, inputs, 0)
    shape = (1, -1, *(1,) * (values.ndim - 2))
    gain, offset, mean, variance = (given(node, inputs, i).reshape(shape) for i in range(1, 5))
    factor = gain / np.sqrt(variance + node.number("epsilon", 1e-5))
    return np.asarray((values - mean) * factor + offset)


def dropout(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Nothing, at inference."""
    training = optional(inputs, 2)
    if training is not None and bool(training.any()):
        raise node.refuse("it is in training mode")
    return given(node, inputs, 0)


def constant(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The tensor, or the numbers, in the attribute."""
    del inputs
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if node.has(name):
            kind = np.float32 if "float" in name else np.int64
            return np.asarray(node.node.attributes[name].value, dtype=kind)
    if not node.has("value"):
        raise node.refuse("it holds neither a tensor nor numbers")
    return np.asarray(node.node.attributes["value"].as_tensor().numpy())
