"""Expand by a constant shape: nothing, where what reads it broadcasts by itself, or repeated parts.

sum, product, difference, quotient with a tensor of the full shape   the Expand's own input
[N, 1, ...] to [N, C, ...]                                 Gather of channel 0, C times
[N, C, 1, 1], [N, C, 1, W], ... to [N, C, H, W]            Resize to the nearest pixel
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import bypass, constant, readers
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

BROADCASTING = frozenset(("Add", "Div", "Mul", "Sub"))
"""Operators whose integer forms, or floats, read one number where the other operand has many."""

NEAREST = {
    "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
}  # fmt: skip
CHANNELS = 1


def lower_expands(network: Network) -> Rewritten:
    """Replace every Expand that has a form above."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    source, full = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if node.op_type != "Expand" or source is None or full is None or len(source) != len(full):
        return False
    if constant(node.inputs[0]) is not None or source[0] != full[0] or source == full:
        return False
    return _is_spare(node) or len(full) == 4 or source[2:] == full[2:]


def _is_spare(node: ir.Node) -> bool:
    """Whether only operators that broadcast read it, each beside a tensor of the full shape."""
    output = node.outputs[0]
    return not output.is_graph_output() and all(
        reader.op_type in BROADCASTING and _has_full_side(reader, output)
        for reader in readers(output)
    )


def _has_full_side(reader: ir.Node, output: ir.Value) -> bool:
    full = static_shape(output)
    return any(
        value is not output and constant(value) is None and static_shape(value) == full
        for value in reader.inputs
    )


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    value = node.inputs[0]
    source, full = static_shape(value), static_shape(node.outputs[0])
    assert value is not None and source is not None and full is not None
    if _is_spare(node):
        bypass(graph, node, value)
        return
    new, shape = Replacement(graph, node), list(source)
    if source[CHANNELS] != full[CHANNELS]:
        shape[CHANNELS] = full[CHANNELS]
        first = new.constant("channels", np.zeros(full[CHANNELS], np.int64))
        value = new.node("Gather", [value, first], "channels", shape, {"axis": CHANNELS})
    if tuple(shape) != full:
        times = np.array(full, np.float64) / np.array(shape)
        scales = new.constant("scales", times.astype(np.float32))
        value = new.node("Resize", [value, None, scales], "pixels", full, NEAREST)
    new.finish(value)
