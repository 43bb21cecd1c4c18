"""Products per channel move through activations and pools to the layer before or behind them.

For s >= 0:  relu(s x) = s relu(x), max(s x) = s max(x)     for every s:  mean(s x) = s mean(x)
A negative factor stops at a Relu or a maximum; its magnitude goes on, and a factor of -1 stays.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, constant, fresh_name, readers, set_initializer
from deploykit.graph.passes.affine import Affine, along, own_weight, scale_producer
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import static_shape

POSITIVE = frozenset(("Relu", "LeakyRelu", "MaxPool", "GlobalMaxPool"))
"""f(s x) = s f(x) by channel for s >= 0."""
LINEAR = frozenset(("AveragePool", "GlobalAveragePool"))
"""The same for every s."""


def scale_before(affine: Affine, value: ir.Value, scale: Float64Array) -> Float64Array:
    """Fold `scale`, or its magnitude, into the layer that `value` comes from through them.

    Returns what is left to multiply by: `scale` itself where nothing was folded.
    """
    negative = bool((scale < 0).any())
    turned = False
    node = value.producer()
    while node is not None and node.op_type in POSITIVE | LINEAR:
        if not _only_read_once(node) or node.outputs[0].name in affine.rounded:
            return scale
        turned = turned or (negative and node.op_type in POSITIVE)
        source = node.inputs[0]
        node = None if source is None else source.producer()
    folded = np.abs(scale) if turned else scale
    if node is None or node is value.producer() or not _only_read_once(node):
        return scale
    if not scale_producer(affine, node, folded, np.zeros_like(scale)):
        return scale
    return np.where(scale < 0, -1.0, 1.0) if turned else np.ones_like(scale)


def scale_behind(affine: Affine, value: ir.Value, scale: Float64Array) -> bool:
    """W' = W*s along the input channels of every layer that `value` reaches through such operators.

    False, and nothing done, if something that cannot take it is reached.
    """
    axes: list[tuple[str, int, Float64Array]] = []
    if not _collect(value, scale, axes, affine.rounded):
        return False
    for name, axis, factor in axes:
        affine.scale(name, along(factor, axis, len(affine.graph.initializers[name].shape or ())))
    return True


def keep_factor(graph: ir.Graph, node: ir.Node, source: ir.Value, factor: Float64Array) -> None:
    """Turn the node into source * factor, a constant along axis 1."""
    name = fresh_name(graph, f"{node.outputs[0].name}.sign")
    rank = len(static_shape(source) or (1, 1))
    made = set_initializer(graph, name, along(factor, 1, rank).astype(np.float32))
    node.op_type = "Mul"
    node.replace_input_with(0, source)
    node.replace_input_with(1, made)


def _collect(
    value: ir.Value,
    scale: Float64Array,
    axes: list[tuple[str, int, Float64Array]],
    rounded: Collection[str],
) -> bool:
    nodes = readers(value)
    if not nodes or value.is_graph_output() or len(value.uses()) != len(nodes):
        return False
    if value.name in rounded:
        return False
    return all(node.inputs[0] is value and _takes(node, scale, axes, rounded) for node in nodes)


def _takes(
    node: ir.Node,
    scale: Float64Array,
    axes: list[tuple[str, int, Float64Array]],
    rounded: Collection[str],
) -> bool:
    positive = bool((scale >= 0).all())
    if node.op_type in LINEAR or (node.op_type in POSITIVE and positive):
        return len(node.outputs) == 1 and _collect(node.outputs[0], scale, axes, rounded)
    if node.op_type in {"Flatten", "Reshape"}:
        pixels = _flattened(node)
        if pixels is None:
            return False
        return _collect(node.outputs[0], np.repeat(scale, pixels), axes, rounded)
    axis = _input_axis(node)
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant(weight)
    if axis is None or weight is None or array is None or not own_weight(weight):
        return False
    if axis >= array.ndim or array.shape[axis] != scale.shape[0]:
        return False
    axes.append((str(weight.name), axis, scale))
    return True


def _flattened(node: ir.Node) -> int | None:
    """How many features each channel becomes where [N, C, ...] -> [N, C * ...], else None."""
    before = None if node.inputs[0] is None else static_shape(node.inputs[0])
    after = static_shape(node.outputs[0])
    if before is None or after is None or len(before) < 3:
        return None
    pixels = math.prod(before[2:])
    return pixels if after == (before[0], before[1] * pixels) else None


def _input_axis(node: ir.Node) -> int | None:
    """Axis of the weight along the channels (axis 1) of the layer's input; None for others."""
    match node.op_type:
        case "Conv" if attribute_int(node, "group", 1) == 1:
            return 1
        case "Gemm" if attribute_int(node, "transA", 0) == 0:
            return 1 if attribute_int(node, "transB", 0) else 0
        case "MatMul":
            left, right = (node.inputs[place] for place in (0, 1))
            flat = all(value is not None and _rank(value) == 2 for value in (left, right))
            return 0 if flat else None
        case _:
            return None


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _only_read_once(node: ir.Node) -> bool:
    output = node.outputs[0]
    return len(node.outputs) == 1 and len(output.uses()) == 1 and not output.is_graph_output()
