"""Norms by the sums that they are, which both formats have.

    ReduceL1           sum |x|
    ReduceL2           sqrt(sum x^2)
    ReduceSumSquare    sum x^2
    LpNormalization    x / max(norm, 1e-30): 0 where all of x is

Source: ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, constant
from deploykit.graph.lowering.building import Replacement, replace_each, scalar
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

REDUCING: Mapping[str, str] = {"ReduceL1": "Abs", "ReduceL2": "Mul", "ReduceSumSquare": "Mul"}
"""What becomes of each number before the sum."""

NORMS: Mapping[int, str] = {1: "ReduceL1", 2: "ReduceL2"}
"""By the p of an LpNormalization."""

SMALLEST = 1e-30
"""Under any norm that is not zero, and a float32."""


def lower_norms(network: Network) -> Rewritten:
    """Replace every node above whose axes are known."""
    return replace_each(network, lambda node: _axes(node) is not None, _replace)


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """Along which axes, counted from the front, such a node sums; None for any other."""
    named = node.op_type in REDUCING or node.op_type == "LpNormalization"
    shape = static_shape(node.inputs[0]) if named else None
    if shape is None or static_shape(node.outputs[0]) is None:
        return None
    rank = len(shape)
    if node.op_type == "LpNormalization":
        if attribute_int(node, "p", 2) not in NORMS:
            return None
        return (attribute_int(node, "axis", -1) % rank,)
    stated = attribute_ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        held = constant(node.inputs[1])
        if held is None:
            return None
        stated = tuple(int(axis) for axis in held.reshape(-1))
    if not stated and attribute_int(node, "noop_with_empty_axes", 0):
        return None
    return tuple(sorted(axis % rank for axis in stated or range(rank)))


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, axes = node.inputs[0], _axes(node)
    shape, left = static_shape(source), static_shape(node.outputs[0])
    assert source is not None and shape is not None and left is not None and axes is not None
    new = Replacement(graph, node)
    if node.op_type != "LpNormalization":
        keep = attribute_int(node, "keepdims", 1)
        new.finish(_norm(new, node.op_type, source, shape, axes, left, keep))
        return
    narrow = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    norm = _norm(new, NORMS[attribute_int(node, "p", 2)], source, shape, axes, narrow, 1)
    least = new.constant("smallest", scalar(SMALLEST, len(shape)))
    safe = new.node("Max", [norm, least], "safe", narrow)
    new.finish(new.node("Div", [source, safe], "normalized", shape))


def _norm(
    new: Replacement,
    op_type: str,
    source: ir.Value,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    left: tuple[int, ...],
    keep: int,
) -> ir.Value:
    """left: the result's shape, with the axes of length 1 where `keep` is 1, else without them."""
    operands = [source] if REDUCING[op_type] == "Abs" else [source, source]
    sizes = new.node(REDUCING[op_type], operands, "sizes", shape)
    along = new.constant("axes", np.array(axes, np.int64))
    total = new.node("ReduceSum", [sizes, along], "total", left, {"keepdims": keep})
    return new.node("Sqrt", [total], "norm", left) if op_type == "ReduceL2" else total
