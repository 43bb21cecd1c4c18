"""Follow the samples of a batch through a graph, and refuse where they meet."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.sample_place import FRONT, SamplePlace
from deploykit.graph.sample_rules import RULES, Given, Read
from deploykit.spec.network import Network, static_shape
from deploykit.spec.stack_recurrent import RECURRENT

LEAVE_OUT = "leave --batch out"


def sample_places(network: Network, way_out: str = LEAVE_OUT) -> Mapping[str, SamplePlace]:
    """Where tensors hold the samples, by name, if each sample's outputs depend on it alone.

    network: with static shapes, the batch along axis 0 of every input. What an operator without a
    rule computes is not followed: it needs one in the plan, or is refused there.

    way_out: what makes an export of one sample at a time.

    Raises GraphError naming the node where samples meet, and what to do.
    """
    graph = network.model.graph
    batch = (static_shape(graph.inputs[0]) or (1,))[0]
    places = dict.fromkeys(graph.inputs, FRONT)
    makers: dict[ir.Value, ir.Node] = {}
    for node in graph:
        if node.op_type not in RULES.keys() | RECURRENT or node.domain not in {"", "ai.onnx"}:
            continue
        given = [_read(value, places) for value in node.inputs]
        held = [one.place for one in given if one is not None and one.place is not None]
        if not held or any(static_shape(value) is None for value in node.outputs if value.uses()):
            continue
        for output, value in enumerate(node.outputs):
            if not value.uses() and not value.is_graph_output():
                continue
            found = _place(node, given, output, batch)
            if found is None:
                raise GraphError(
                    f"{node.name}: operator {node.op_type} mixes the samples of a batch, so that a "
                    f"sample's answer would depend on the others; {way_out}, or keep the samples "
                    "apart in the network"
                )
            places[value] = found
            behind = [makers[one] for one in node.inputs if one in makers]
            makers[value] = behind[0] if behind and found in held else node
    for value in graph.outputs:
        if places.get(value, FRONT) != FRONT:
            node = makers[value]
            raise GraphError(
                f"{node.name}: operator {node.op_type} puts the samples elsewhere than along an "
                f"axis of their own in front, and output {value.name} has them there; {way_out}, "
                "or return it with the samples in front"
            )
    return {str(value.name): place for value, place in places.items()}


def _read(value: ir.Value | None, places: dict[ir.Value, SamplePlace]) -> Read | None:
    shape = static_shape(value)
    return None if value is None or shape is None else Read(shape, places.get(value))


def _place(node: ir.Node, given: Given, output: int, batch: int) -> SamplePlace | None:
    if node.op_type in RECURRENT:
        first = given[0]
        if first is None or first.place is None or first.place.axis != 1:
            return None
        return SamplePlace(2 if output == 0 else 1, first.place.outer, first.place.inner)
    return RULES[node.op_type](node, given, batch)
