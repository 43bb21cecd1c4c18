"""A recurrent layer whose sequence and last states are both read, as one layer for each of them.

An island has one result. The layer is computed once more for each further one: twice the time, in
networks that few exporters write.
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import fresh_name
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network
from deploykit.spec.stack_recurrent import RECURRENT


def split_recurrent(network: Network) -> Rewritten:
    """Give every result of a GRU or LSTM that is read a node of its own."""
    if not any(len(_read(node)) > 1 for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in list(model.graph):
        for place in _read(node)[1:]:
            _apart(model.graph, node, place)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _read(node: ir.Node) -> list[int]:
    """Places of a recurrent layer's results that are read."""
    if node.op_type not in RECURRENT:
        return []
    return [
        place
        for place, value in enumerate(node.outputs)
        if value.name and (value.uses() or value.is_graph_output())
    ]


def _apart(graph: ir.Graph, node: ir.Node, place: int) -> None:
    """The result at `place` from a copy of the node."""
    old = node.outputs[place]
    copy = ir.node(
        node.op_type, list(node.inputs), dict(node.attributes), num_outputs=len(node.outputs),
        name=f"{node.name}.{place}",
    )  # fmt: skip
    for index, value in enumerate(copy.outputs):
        value.shape, value.type = node.outputs[index].shape, node.outputs[index].type
        value.name = fresh_name(graph, f"{node.outputs[index].name}.{place}")
    graph.insert_after(node, copy)
    name, new = old.name, copy.outputs[place]
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = fresh_name(graph, f"{name}.unread")
    new.name = name
