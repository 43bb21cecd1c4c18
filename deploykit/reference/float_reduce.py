"""Reductions, softmax and selections along axes of the float evaluator.

Source: ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploykit.reference.float_node import (
    FloatNode,
    Inputs,
    Rule,
    axis_of,
    given,
    integer_list,
)
from deploykit.spec.arrays import AnyArray

Reduction = Callable[[AnyArray, tuple[int, ...], bool], AnyArray]
"""From values, axes counted from the front, and whether the axes stay with length 1."""


def axes_of(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    """The axes that a reduction takes, counted from the front; all of them without any."""
    values = given(node, inputs, 0)
    axes = integer_list(node, inputs, 1, "axes")
    if not axes:
        return () if node.integer("noop_with_empty_axes", 0) else tuple(range(values.ndim))
    return tuple(axis_of(values, axis) for axis in axes)


def reduced(reduction: Reduction) -> Rule:
    """A rule that reduces axes."""

    def rule(node: FloatNode, inputs: Inputs) -> AnyArray:
        values = given(node, inputs, 0)
        kept = node.integer("keepdims", 1) == 1
        return np.asarray(reduction(values, axes_of(node, inputs), kept)).astype(
            values.dtype, copy=False
        )

    return rule


def log_sum_exp(values: AnyArray, axes: tuple[int, ...], kept: bool) -> AnyArray:
    """ln sum exp(x), shifted by the largest x."""
    largest = values.max(axis=axes, keepdims=True)
    total = np.log(np.exp(values - largest).sum(axis=axes, keepdims=True)) + largest
    return np.asarray(total if kept else np.squeeze(total, axis=axes))


def softmax_axes(node: FloatNode, values: AnyArray) -> tuple[int, ...]:
    """The axis; before opset 13 all axes from it on."""
    axis = axis_of(values, node.integer("axis", -1 if node.opset >= 13 else 1))
    return (axis,) if node.opset >= 13 else tuple(range(axis, values.ndim))


def softmax(values: AnyArray, node: FloatNode) -> AnyArray:
    """exp(x) / sum exp(x)."""
    axes = softmax_axes(node, values)
    powers: AnyArray = np.subtract(values, values.max(axis=axes, keepdims=True))
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=axes, keepdims=True)
    return powers


def log_softmax(values: AnyArray, node: FloatNode) -> AnyArray:
    """x - ln sum exp(x)."""
    return np.asarray(values - log_sum_exp(values, softmax_axes(node, values), True))


def arg_extreme(find: Callable[[AnyArray, int], AnyArray]) -> Rule:
    """Index along axis of the first extreme value, or of the last where asked."""

    def rule(node: FloatNode, inputs: Inputs) -> AnyArray:
        values = given(node, inputs, 0)
        axis = axis_of(values, node.integer("axis", 0))
        if node.integer("select_last_index", 0):
            found = values.shape[axis] - 1 - find(np.flip(values, axis), axis)
        else:
            found = find(values, axis)
        found = np.asarray(found, dtype=np.int64)
        return np.expand_dims(found, axis) if node.integer("keepdims", 1) else found

    return rule


def top_k(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, ...]:
    """The k largest (or smallest) along axis in order, equal ones by index; and their indices."""
    values = given(node, inputs, 0)
    (count,) = integer_list(node, inputs, 1, "k") or (1,)
    axis = axis_of(values, node.integer("axis", -1))
    if node.integer("largest", 1):
        order = values.shape[axis] - 1 - np.argsort(np.flip(values, axis), axis, kind="stable")
        order = np.flip(order, axis)
    else:
        order = np.argsort(values, axis, kind="stable")
    indices = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(values, indices, axis), indices.astype(np.int64)


def cumulative_sum(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Sums of all entries up to each along an axis; without itself, or from the end, if asked."""
    values = given(node, inputs, 0)
    axis = axis_of(values, int(given(node, inputs, 1).reshape(()).item()))
    turned = np.flip(values, axis) if node.integer("reverse", 0) else values
    sums = np.cumsum(turned, axis=axis, dtype=values.dtype)
    if node.integer("exclusive", 0):
        sums = sums - turned
    return np.flip(sums, axis) if node.integer("reverse", 0) else sums
