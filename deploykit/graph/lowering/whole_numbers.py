"""Whole numbers at a network's ends, in the operators that stay.

Cast of an input to another type of whole numbers   the input itself
ArgMax of a Softmax along the same axis             of what the Softmax reads: it keeps the order
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import attribute_int, bypass
from deploykit.graph.lowering.building import replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network
from deploykit.spec.whole_numbers import KEEPING, WHOLE


def drop_casts(network: Network) -> Rewritten:
    """A table's rows are found by numbers of either type."""
    return replace_each(network, _keeps, _drop)


def _keeps(node: ir.Node) -> bool:
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
    if node.op_type not in KEEPING or source is None or result.is_graph_output():
        return False
    return source.is_graph_input() and source.dtype in WHOLE and result.dtype in WHOLE


def drop_softmaxes(network: Network) -> Rewritten:
    """A Softmax or LogSoftmax that an ArgMax alone reads is not computed."""
    return replace_each(network, _is_ordered, _drop)


def _is_ordered(node: ir.Node) -> bool:
    readers, rank = list(node.outputs[0].uses()), len(node.outputs[0].shape or ())
    if node.op_type not in {"Softmax", "LogSoftmax"} or node.outputs[0].is_graph_output():
        return False
    if len(readers) != 1 or readers[0].node.op_type != "ArgMax" or not rank:
        return False
    own, largest = attribute_int(node, "axis", -1), attribute_int(readers[0].node, "axis", 0)
    return own % rank == largest % rank


def _drop(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    bypass(graph, node, source)
