"""A condition for each of its readers: booleans have no integers, so none leaves its island.

m = x > 0,  y = where(m, a, b),  z = where(m, c, d)     m once more beside z
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import fresh_name
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network


def own_conditions(network: Network) -> Rewritten:
    """Copy every node that gives booleans, and what gives it booleans, for each reader but one."""
    if not any(_further_readers(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in reversed(list(model.graph)):
        for reader, place in _further_readers(node):
            reader.replace_input_with(place, _copied(model.graph, node))
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _further_readers(node: ir.Node) -> list[tuple[ir.Node, int]]:
    """Who reads a condition beside the first reader, and as which input."""
    uses = node.outputs[0].uses() if node.outputs[0].dtype == ir.DataType.BOOL else ()
    return [(use.node, use.idx) for use in uses][1:]


def _copied(graph: ir.Graph, node: ir.Node) -> ir.Value:
    copy, old = ir.node(node.op_type, list(node.inputs), dict(node.attributes)), node.outputs[0]
    (value,) = copy.outputs
    value.name = copy.name = fresh_name(graph, f"{old.name}.own")
    value.shape, value.type = old.shape, old.type
    graph.insert_after(node, copy)
    return value
