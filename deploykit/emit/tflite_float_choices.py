"""Float TFLite forms of conditions, which are tensors of booleans, and of choices by them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_elementwise import alias, largest_order
from deploykit.emit.tflite_float_order import Order
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Options

COMPARISONS: Mapping[str, tuple[str, str]] = {
    "Equal": ("EQUAL", "EqualOptions"),
    "Greater": ("GREATER", "GreaterOptions"),
    "GreaterOrEqual": ("GREATER_EQUAL", "GreaterEqualOptions"),
    "Less": ("LESS", "LessOptions"),
    "LessOrEqual": ("LESS_EQUAL", "LessEqualOptions"),
}
"""The TFLite operator and its table of options by operator type."""

LOGIC: Mapping[str, tuple[str, str]] = {
    "And": ("LOGICAL_AND", "LogicalAndOptions"),
    "Not": ("LOGICAL_NOT", "LogicalNotOptions"),
    "Or": ("LOGICAL_OR", "LogicalOrOptions"),
}
"""The same of operators on conditions."""


def compare(node: ir.Node, site: FloatSite) -> None:
    """The row of COMPARISONS, of numbers."""
    code, table = COMPARISONS[node.op_type]
    order = largest_order(node, site, (0, 1))
    inputs = tuple(site.operand(node, position, order) for position in (0, 1))
    site.graph.operator(code, inputs, site.define(node.outputs[0], order), Options(table))


def logic(node: ir.Node, site: FloatSite) -> None:
    """The row of LOGIC."""
    code, table = LOGIC[node.op_type]
    positions = range(len(node.inputs))
    order = largest_order(node, site, positions)
    inputs = tuple(_condition(node, site, position, order) for position in positions)
    site.graph.operator(code, inputs, site.define(node.outputs[0], order), Options(table))


def where(node: ir.Node, site: FloatSite) -> None:
    """SELECT_V2, whose operands broadcast."""
    order = largest_order(node, site, (0, 1, 2))
    chosen = (site.operand(node, position, order) for position in (1, 2))
    inputs = (_condition(node, site, 0, order), *chosen)
    result = site.define(node.outputs[0], order)
    site.graph.operator("SELECT_V2", inputs, result, Options("SelectV2Options"))


def cast(node: ir.Node, site: FloatSite) -> None:
    """CAST of a condition: 1 where it holds, else 0. Of float32 to itself none."""
    source = node.inputs[0]
    if source is None or source.dtype != ir.DataType.BOOL:
        alias(node, site)
        return
    place = site.place(node)
    result = site.define(node.outputs[0], place.order)
    site.graph.operator("CAST", (place.index,), result, Options("CastOptions"))


def _condition(node: ir.Node, site: FloatSite, position: int, order: Order) -> int:
    held = read.constant(node.inputs[position])
    if held is None:
        return site.operand(node, position, order)
    return site.constant(f"{read.label(node)}/{position}", held.astype(np.bool_), order)
