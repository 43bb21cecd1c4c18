"""Casts of an input from one type of whole numbers to another: nothing is left to do for them."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import bypass
from deploykit.graph.lowering.building import replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network
from deploykit.spec.token_ids import KEEPING

WHOLE = (ir.DataType.INT32, ir.DataType.INT64)


def drop_casts(network: Network) -> Rewritten:
    """A table's rows are found by numbers of either type."""
    return replace_each(network, _keeps, _drop)


def _keeps(node: ir.Node) -> bool:
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
    if node.op_type not in KEEPING or source is None or result.is_graph_output():
        return False
    return source.is_graph_input() and source.dtype in WHOLE and result.dtype in WHOLE


def _drop(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    bypass(graph, node, source)
