"""Reductions over pixels or channels as the pools and convolutions that they are.

    GlobalMaxPool, ReduceMax over H and/or W    a MaxPool whose window is all of them
    ReduceMean over H or W                      a depthwise convolution of equal weights
    ReduceMean over C                           a 1x1 convolution of equal weights, to one channel
    ReduceSum over H and W                      H*W times the GlobalAveragePool
    ReduceSum over H, W or C                    the convolutions above, of ones

Axes that are not kept go in a Squeeze behind it. A mean over one axis stays in float in ONNX
Runtime; the convolution is as fast as its float form, and requantizes alike everywhere. A mean or
sum on its way to a denominator or under a root, as those of norms are, stays what it is: eight bits
of a variance are few where it is small.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, constant
from deploykit.graph.lowering.building import Replacement, replace_each, scalar
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

CHANNELS, PIXELS = 1, (2, 3)
REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "GlobalMaxPool"})
DELICATE = {"Div": 1, "Log": 0, "Pow": 0, "Reciprocal": 0, "Sqrt": 0}
"""By operator, the input that small errors are large for where it is small."""
LEADING = REDUCTIONS | {
    "Add", "Clip", "Expand", "Max", "Mul", "Pow", "Reshape", "Squeeze", "Sub", "Unsqueeze"
}  # fmt: skip
FARTHEST = 8
"""Nodes on the way; spelled-out norms have up to five."""
Shape = tuple[int, ...]


def lower_reductions(network: Network) -> Rewritten:
    """Replace every reduction of [N, C, H, W] that has a form above."""
    return replace_each(network, _fits, _replace)


def _axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """In order; empty where they are not known."""
    if node.op_type == "GlobalMaxPool":
        return PIXELS
    stated = attribute_ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        held = constant(node.inputs[1])
        stated = () if held is None else tuple(int(axis) for axis in held.reshape(-1))
    return tuple(sorted(axis % rank for axis in stated))


def _fits(node: ir.Node) -> bool:
    if node.op_type not in REDUCTIONS:
        return False
    shape = static_shape(node.inputs[0])
    if shape is None or len(shape) != 4 or static_shape(node.outputs[0]) is None:
        return False
    axes = _axes(node, 4)
    if node.op_type in {"ReduceMax", "GlobalMaxPool"}:
        return axes in {(2,), (3,), PIXELS}
    if _divides(node.outputs[0], FARTHEST):
        return False
    return axes in {(CHANNELS,), (2,), (3,)} or (axes == PIXELS and node.op_type == "ReduceSum")


def _divides(value: ir.Value, farthest: int) -> bool:
    """Whether something divides by a value, or takes its root, within so many nodes."""
    uses = [(use.node, use.idx) for use in value.uses()]
    if any(DELICATE.get(reader.op_type) == place for reader, place in uses):
        return True
    ahead = [reader.outputs[0] for reader, _ in uses if reader.op_type in LEADING]
    return farthest > 1 and any(_divides(result, farthest - 1) for result in ahead)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    shape, source = static_shape(node.inputs[0]), node.inputs[0]
    assert shape is not None and source is not None
    new, axes = Replacement(graph, node), _axes(node, 4)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    if node.op_type in {"ReduceMax", "GlobalMaxPool"}:
        window = _window(shape, axes)
        result = new.node("MaxPool", [source], "largest", kept, window)
    elif axes == PIXELS:
        mean = new.node("GlobalAveragePool", [source], "mean", kept)
        count = new.constant("count", scalar(float(prod(shape[2:])), 4))
        result = new.node("Mul", [mean, count], "sum", kept)
    else:
        result = _summed(new, node, source, shape, kept, axes)
    if static_shape(node.outputs[0]) != kept:
        left = static_shape(node.outputs[0])
        assert left is not None and not attribute_int(node, "keepdims", 1)
        dropped = new.constant("axes", np.array(axes, np.int64))
        result = new.node("Squeeze", [result, dropped], "squeezed", left)
    new.finish(result)


def _window(shape: Shape, axes: tuple[int, ...]) -> dict[str, object]:
    kernel = [shape[axis] if axis in axes else 1 for axis in PIXELS]
    return {
        "kernel_shape": kernel, "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]
    }  # fmt: skip


def _summed(
    new: Replacement,
    node: ir.Node,
    source: ir.Value,
    shape: Shape,
    kept: Shape,
    axes: tuple[int, ...],
) -> ir.Value:
    """A convolution of equal weights over one axis."""
    window, channels = _window(shape, axes), shape[1]
    share = 1.0 / prod(shape[axis] for axis in axes) if node.op_type == "ReduceMean" else 1.0
    if axes == (CHANNELS,):
        weight, groups = np.full((1, channels, 1, 1), share), 1
    else:
        kernel = (shape[2], 1) if axes == (2,) else (1, shape[3])
        weight, groups = np.full((channels, 1, *kernel), share), channels
    held = new.constant("weight", weight)
    bias = new.constant("bias", np.zeros(len(weight)))
    return new.node("Conv", [source, held, bias], "sums", kept, {**window, "group": groups})
