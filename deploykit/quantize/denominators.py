"""Denominators that several regions read, computed in each of them.

    a = 1 + exp(c),  y = c / a,  z = d / a        a once more, in float, beside y and beside z

A node that two regions read belongs to neither, and as an integer a denominator may be 0. What has
one operand (exp, sums and products with constants) is copied; nothing that reads two tensors is.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from deploykit.quantize.membership import (
    DELICATE,
    ELEMENTWISE,
    WITHOUT_FLOAT,
    Membership,
    membership_of,
    taken_in,
)
from deploykit.quantize.nodes import activations
from deploykit.quantize.operators import Kind, kind_of
from deploykit.spec.network import Network

COPIED = ".copied"
"""Stands in the names of copies, before a number."""


def separate_denominators(network: Network) -> Network:
    """The same function, with a copy for each region of what leads to its denominators.

    network: lowered.
    """
    membership = _membership(network.model)
    if not any(_regions(node, membership) for node in network.model.graph):
        return network
    model = network.model.clone()
    while True:
        membership = _membership(model)
        shared = {node: _regions(node, membership) for node in model.graph}
        node = next((node for node in reversed(list(model.graph)) if shared[node]), None)
        if node is None:
            return network.rewritten(model)
        for number, readers in enumerate(shared[node].values()):
            _copy(model.graph, node, readers, number)
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            model.graph.remove(node, safe=True)


def _membership(model: ir.Model) -> Membership:
    return membership_of(list(model.graph))


def _regions(node: ir.Node, membership: Membership) -> Mapping[ir.Node, list[ir.Node]]:
    """By region that takes a copy of a node, its nodes that read it; empty where none does."""
    kind, (result, *_) = kind_of(node), node.outputs
    delicate = membership.delicate.get(result, frozenset())
    if kind is None or kind not in ELEMENTWISE & delicate or node in membership.homes:
        return {}
    if len(activations(node)) != 1 or node.op_type in WITHOUT_FLOAT or taken_in(node, kind):
        return {}
    found: dict[ir.Node, list[ir.Node]] = {}
    for use in result.uses():
        home = membership.homes.get(use.node)
        if home is not None and _harmed(use.node, use.idx, kind, membership):
            found.setdefault(home, []).append(use.node)
    inside = sum(len(readers) for readers in found.values())
    alone = len(found) == 1 and inside == len(result.uses()) and not result.is_graph_output()
    return {} if alone else found


def _harmed(reader: ir.Node, place: int, kind: Kind, membership: Membership) -> bool:
    """Whether a node of a region needs what it reads there unrounded."""
    if kind_of(reader) is None and reader.op_type in DELICATE:
        delicate, kinds = DELICATE[reader.op_type]
        return place == delicate and kind in kinds
    return kind in membership.delicate.get(reader.outputs[0], frozenset())


def _copy(graph: ir.Graph, node: ir.Node, readers: list[ir.Node], number: int) -> None:
    result = node.outputs[0]
    name = f"{result.name}{COPIED}{number}"
    made = ir.Value(name=name, shape=result.shape, type=result.type)
    copied = ir.Node(
        node.domain, node.op_type, list(node.inputs), list(node.attributes.values()),
        outputs=[made], name=name,
    )  # fmt: skip
    graph.insert_before(node, copied)
    for reader in readers:
        for place, value in enumerate(reader.inputs):
            if value is result:
                reader.replace_input_with(place, made)
