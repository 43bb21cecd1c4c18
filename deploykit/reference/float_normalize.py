"""Normalizations of the float evaluator.

Source: ONNX operator specification.
"""

from __future__ import annotations

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, axis_of, given, optional
from deploykit.spec.arrays import AnyArray

EPSILON = 1e-5


def batch_normalization(node: FloatNode, inputs: Inputs) -> AnyArray:
    """g * (x - m) / sqrt(var + eps) + t along axis 1, with the stored statistics."""
    if node.integer("training_mode", 0):
        raise node.refuse("it is in training mode")
    values = given(node, inputs, 0)
    gain, offset, center, variance = (_by_channel(node, inputs, i) for i in range(1, 5))
    result: AnyArray = np.subtract(values, center)
    result *= gain / np.sqrt(variance + node.number("epsilon", EPSILON))
    result += offset
    return result


def instance_normalization(node: FloatNode, inputs: Inputs) -> AnyArray:
    """g * (x - mean) / sqrt(var + eps) + t, statistics over the axes behind the channel."""
    values = given(node, inputs, 0)
    result, _, _ = _standardized(values, tuple(range(2, values.ndim)), node)
    return result * _by_channel(node, inputs, 1) + _by_channel(node, inputs, 2)


def group_normalization(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The same with statistics over each group of channels.

    Gain and offset are per group before opset 21, per channel since.
    """
    values = given(node, inputs, 0)
    groups = node.integer("num_groups", 1)
    grouped = values.reshape(len(values), groups, -1)
    result, _, _ = _standardized(grouped, (2,), node)
    result = result.reshape(values.shape)
    repeats = values.shape[1] // groups if node.opset < 21 else 1
    gain, offset = (np.repeat(given(node, inputs, i), repeats) for i in (1, 2))
    shape = (-1, *(1,) * (values.ndim - 2))
    return np.asarray(result * gain.reshape(shape) + offset.reshape(shape))


def layer_normalization(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, ...]:
    """g * (x - mean) / sqrt(var + eps) + t over all axes from `axis` on; mean; 1 / deviation."""
    values, offset = given(node, inputs, 0), optional(inputs, 2)
    axes = tuple(range(axis_of(values, node.integer("axis", -1)), values.ndim))
    result, center, inverse = _standardized(values, axes, node)
    result = result * given(node, inputs, 1)
    return (result if offset is None else result + offset), center, inverse


def rms_normalization(node: FloatNode, inputs: Inputs) -> AnyArray:
    """g * x / sqrt(mean x^2 + eps) over all axes from `axis` on."""
    values = given(node, inputs, 0)
    axes = tuple(range(axis_of(values, node.integer("axis", -1)), values.ndim))
    square = np.mean(values * values, axis=axes, keepdims=True)
    root = np.sqrt(square + node.number("epsilon", EPSILON))
    return np.asarray(values / root * given(node, inputs, 1))


def lp_normalization(values: AnyArray, node: FloatNode) -> AnyArray:
    """x / norm along axis, the L1 or L2 norm; 0 where the norm is 0."""
    axis, order = node.integer("axis", -1), node.integer("p", 2)
    if order not in (1, 2):
        raise node.refuse(f"its norm is of order {order}")
    size = np.abs(values) if order == 1 else values * values
    norm = size.sum(axis=axis, keepdims=True)
    norm = norm if order == 1 else np.sqrt(norm)
    return np.asarray(values / np.where(norm == 0, 1, norm))


def local_response(values: AnyArray, node: FloatNode) -> AnyArray:
    """x / (bias + alpha / size * sum of x^2 over `size` channels around) ^ beta."""
    size = node.integer("size", 1)
    before = (size - 1) // 2
    widths = ((0, 0), (before, size - 1 - before), *((0, 0),) * (values.ndim - 2))
    squares = np.pad(values * values, widths)
    total = sum(squares[:, at : at + values.shape[1]] for at in range(size))
    scale = node.number("bias", 1.0) + node.number("alpha", 1e-4) / size * np.asarray(total)
    return np.asarray(values / scale ** node.number("beta", 0.75))


def _standardized(
    values: AnyArray, axes: tuple[int, ...], node: FloatNode
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """(x - mean) / sqrt(var + eps) over axes; the mean; 1 / sqrt(var + eps)."""
    center = values.mean(axis=axes, keepdims=True)
    result = values - center
    variance = np.mean(result * result, axis=axes, keepdims=True)
    inverse = 1.0 / np.sqrt(variance + node.number("epsilon", EPSILON))
    result *= inverse
    return result, center, inverse


def _by_channel(node: FloatNode, inputs: Inputs, index: int) -> AnyArray:
    """A parameter [C] to broadcast against [N, C, ...]."""
    return given(node, inputs, index).reshape(-1, *(1,) * (given(node, inputs, 0).ndim - 2))
