"""A concatenation that only another one along the same axis reads is part of it."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import attribute_int, readers
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def merge_concats(network: Network) -> Rewritten:
    """One Concat where several were nested."""
    if not any(_inner(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    while True:
        found = next((pair for node in model.graph if (pair := _inner(node))), None)
        if found is None:
            return Rewritten(network.rewritten(model))
        _merge(model.graph, *found)


def _inner(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """(outer, inner) where a Concat reads another that nobody else reads."""
    for value in node.inputs if node.op_type == "Concat" else ():
        inner = None if value is None else value.producer()
        if value is None or inner is None or inner.op_type != "Concat":
            continue
        alone = readers(value) == (node,) and not value.is_graph_output()
        shape = static_shape(value)
        if alone and shape is not None and _axis(inner, len(shape)) == _axis(node, len(shape)):
            return node, inner
    return None


def _axis(node: ir.Node, rank: int) -> int:
    return attribute_int(node, "axis", 0) % rank


def _merge(graph: ir.Graph, outer: ir.Node, inner: ir.Node) -> None:
    joined: list[ir.Value | None] = []
    for value in outer.inputs:
        joined.extend(inner.inputs if value is inner.outputs[0] else [value])
    outer.resize_inputs(len(joined))
    for index, value in enumerate(joined):
        outer.replace_input_with(index, value)
    graph.remove(inner, safe=True)
