"""Operators of the float evaluator that make tensors out of attributes and shapes."""

from __future__ import annotations

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, given
from deploykit.spec.arrays import AnyArray


def constant(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The tensor, or the numbers, in the attribute."""
    del inputs
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if node.has(name):
            kind = np.float32 if "float" in name else np.int64
            return np.asarray(node.node.attributes[name].value, dtype=kind)
    held = node.tensor("value")
    if held is None:
        raise node.refuse("it holds neither a tensor nor numbers")
    return held


def constant_of_shape(node: FloatNode, inputs: Inputs) -> AnyArray:
    """One value, 0.0 unless written, in the shape that the input holds."""
    held = node.tensor("value")
    value = np.zeros(1, np.float32) if held is None else held
    return np.full(tuple(given(node, inputs, 0)), value.reshape(()), dtype=value.dtype)


def arange(node: FloatNode, inputs: Inputs) -> AnyArray:
    """start, start + step, ... below the limit."""
    start, limit, step = (given(node, inputs, i).reshape(()) for i in range(3))
    count = max(0, int(np.ceil((limit - start) / step)))
    return np.asarray(start + np.arange(count) * step, dtype=start.dtype)


def shape(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Lengths of the axes from start to end."""
    lengths = given(node, inputs, 0).shape
    start = node.integer("start", 0)
    return np.array(lengths[start : node.integer("end", len(lengths))], dtype=np.int64)


def size(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Number of elements."""
    return np.array(given(node, inputs, 0).size, dtype=np.int64)
