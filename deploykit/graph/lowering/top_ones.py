"""TopK of one entry, as the maximum and the place of the first largest that it is.

Source: ONNX operator specification, TopK: of equal entries the one of the lower index is taken.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, constant, fresh_name, set_initializer, take_over
from deploykit.graph.lowering.building import replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def lower_top_ones(network: Network) -> Rewritten:
    """Replace every TopK that takes the one largest entry along an axis."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    if node.op_type != "TopK" or not attribute_int(node, "largest", 1):
        return False
    count = constant(node.inputs[1])
    return count is not None and int(count.item()) == 1 and static_shape(node.inputs[0]) is not None


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, (largest, place) = node.inputs[0], node.outputs
    shape = static_shape(source)
    assert source is not None and shape is not None
    axis = attribute_int(node, "axis", -1) % len(shape)
    if _is_read(largest):
        name = fresh_name(graph, f"{largest.name}.axes")
        axes = set_initializer(graph, name, np.array([axis], np.int64))
        _stand_in(graph, ir.node("ReduceMax", [source, axes], {"keepdims": 1}), node, largest)
    if _is_read(place):
        made = ir.node("ArgMax", [source], {"axis": axis, "keepdims": 1})
        _stand_in(graph, made, node, place)
    graph.remove(node, safe=True)


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _stand_in(graph: ir.Graph, made: ir.Node, node: ir.Node, old: ir.Value) -> None:
    made.name = str(old.name)
    graph.insert_before(node, made)
    take_over(graph, old, made.outputs[0])
