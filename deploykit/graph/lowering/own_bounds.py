"""Constants of Max and Min, each for one node: its integers are those of that node's tensor."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import constant, set_operand
from deploykit.graph.lowering.building import replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network


def own_bounds(network: Network) -> Rewritten:
    """A constant that others read too is copied."""
    return replace_each(network, _shares, _copy)


def _shared(node: ir.Node) -> list[int]:
    """Places of constants that another node reads as well."""
    return [
        index
        for index, value in enumerate(node.inputs)
        if value is not None and constant(value) is not None and len(value.uses()) > 1
    ]


def _shares(node: ir.Node) -> bool:
    return node.op_type in {"Max", "Min"} and bool(_shared(node))


def _copy(graph: ir.Graph, node: ir.Node) -> None:
    for index in _shared(node):
        array = constant(node.inputs[index])
        assert array is not None
        set_operand(graph, node, index, array)
