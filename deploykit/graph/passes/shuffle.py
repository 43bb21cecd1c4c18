"""A channel shuffle, spelled Reshape, Transpose, Reshape, as the Gather that it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_ints, fresh_name, readers, set_initializer, take_over
from deploykit.spec.arrays import IntArray
from deploykit.spec.network import static_shape


def gather_shuffles(graph: ir.Graph) -> None:
    """Replace every Reshape - Transpose - Reshape whose whole effect permutes axis 1.

    A Gather by a permutation says which channel goes where, so channels can be removed around it;
    the three nodes would ask for equally many in every group.
    """
    for node in list(graph):
        if node.op_type != "Reshape" or node.inputs[0] is None:
            continue
        middle = _only_reader(node, "Transpose")
        last = None if middle is None else _only_reader(middle, "Reshape")
        if middle is None or last is None:
            continue
        order = _permutation(node, middle, last)
        if order is not None:
            _gather(graph, node.inputs[0], last, order)
            for gone in (last, middle, node):
                graph.remove(gone, safe=True)


def _only_reader(node: ir.Node, operator: str) -> ir.Node | None:
    output = node.outputs[0]
    if len(output.uses()) != 1 or output.is_graph_output():
        return None
    (reader,) = readers(output)
    return reader if reader.op_type == operator and reader.inputs[0] is output else None


def _permutation(first: ir.Node, middle: ir.Node, last: ir.Node) -> IntArray | None:
    """[C]: output channel k is input channel order[k]; None where it is no permutation of them."""
    before, split = static_shape(first.inputs[0]), static_shape(first.outputs[0])
    after = static_shape(last.outputs[0])
    if before is None or split is None or before != after or len(before) < 2 or before[0] != 1:
        return None
    perm = attribute_ints(middle, "perm", tuple(reversed(range(len(split)))))
    size = int(np.prod(before))
    order = np.arange(size).reshape(split).transpose(perm).reshape(before)
    rest = size // before[1]
    channels = order.reshape(before[1], rest)[:, 0] // rest
    expected = np.arange(size).reshape(before)[:, channels]
    return channels if np.array_equal(order, expected) else None


def _gather(graph: ir.Graph, source: ir.Value, last: ir.Node, order: IntArray) -> None:
    old = last.outputs[0]
    name = str(old.name)
    index = set_initializer(graph, fresh_name(graph, f"{name}.order"), order.astype(np.int64))
    gather = ir.node("Gather", [source, index], {"axis": 1}, name=f"{name}.gather")
    graph.insert_before(last, gather)
    take_over(graph, old, gather.outputs[0])
