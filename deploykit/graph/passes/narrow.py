"""A layer computes only the channels that are not constant, where copying them is cheaper.

A residual sum keeps the union of its branches' channels, so a branch may have to put out many rows
of zeros and constants. With the live rows S of W, and c their constants elsewhere:

    W x + b  =  G (W_S x + b_S, 0) + c

G copies every live row to its place and a row of zeros to all others. c is zero after most norms;
else it goes into the layer on the other side of the sum, or is added. No live product changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_int,
    constant,
    floats,
    fresh_name,
    label,
    set_initializer,
    take_over,
)
from deploykit.graph.layer_work import layer_kind, positions_and_taps
from deploykit.graph.passes.affine import Affine, output_axis, own_weight, scale_producer
from deploykit.graph.tracking import Rewritten
from deploykit.graph.widths.choose import Use, best_width
from deploykit.graph.widths.table import Move, Side, WidthTable
from deploykit.spec.arrays import BoolArray, Float64Array
from deploykit.spec.network import Network, static_shape
from deploykit.spec.removal import NarrowedLayer

AXIS = 1
"""Of the channels."""


@dataclass(frozen=True)
class _Rows:
    """Of a layer's weight. live: [O], rows with a weight; offset: [O], biases."""

    axis: int
    inputs: int
    live: BoolArray
    offset: Float64Array

    @property
    def constants(self) -> Float64Array:
        """[O], what the channels without a weight are; zero for the others."""
        return np.where(self.live, 0.0, self.offset)


def narrow_layers(
    network: Network, table: WidthTable
) -> tuple[Rewritten, tuple[NarrowedLayer, ...]]:
    """The same function, every convolution narrowed that the table predicts to gain by it.

    network: canonical. Tensors keep their names and shapes; a narrowed layer puts out a new one.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), element=np.dtype(np.float64))
    done = []
    for node in list(model.graph):
        rows = _rows(node)
        if rows is None:
            continue
        width, gain = _choose(node, rows, table)
        if gain > 1.0:
            done.append(
                NarrowedLayer(label(node), len(rows.live), int(rows.live.sum()), width, gain)
            )
            _narrow(affine, node, rows, width)
    return (affine.finish(network, model) if done else Rewritten(network)), tuple(done)


def _rows(node: ir.Node) -> _Rows | None:
    """None where the node is no convolution of its own weight, or all rows or none have one."""
    dense = node.op_type in {"Conv", "ConvTranspose"} and attribute_int(node, "group", 1) == 1
    axis = output_axis(node) if dense else None
    weight = floats(node.inputs[1]) if axis is not None and own_weight(node.inputs[1]) else None
    if axis is None or weight is None or node.outputs[0].is_graph_output():
        return None
    live = np.asarray(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).any(axis=1))
    if live.all() or not live.any():
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    offset = np.zeros(len(live)) if bias is None else floats(bias)
    if offset is None or (bias is not None and not own_weight(bias)):
        return None
    return _Rows(axis, weight.shape[1 - axis], live, offset)


def _choose(node: ir.Node, rows: _Rows, table: WidthTable) -> tuple[int, float]:
    """The width to narrow to, and by how much the layer with its copy is faster: 1.0 if it is not.

    A gain has to be larger than the table's margin.
    """
    kind, weight = layer_kind(node), positions_and_taps(node)
    use = Use(kind, Side.OUTPUTS, rows.inputs, weight)
    before = len(rows.live)
    width = best_width(int(rows.live.sum()) + 1, before, (use,), table)
    elements = float(np.prod((static_shape(node.outputs[0]) or ())[AXIS:]))
    moved = table.moves[Move.GATHER].cost(elements)
    if rows.constants.any() and _other_layer(node) is None:
        moved += table.moves[Move.ADD].cost(elements)
    after = weight * table.cost(kind, rows.inputs, width) + moved
    gain = weight * table.cost(kind, rows.inputs, before) / after
    believed = width < before and gain * (1 - table.costs[kind].margin) > 1.0
    return width, gain if believed else 1.0


def _narrow(affine: Affine, node: ir.Node, rows: _Rows, width: int) -> None:
    graph, constants = affine.graph, rows.constants
    dead = np.flatnonzero(~rows.live)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(rows.live), dead[: width - int(rows.live.sum())]])
    )
    value = node.outputs[0]
    other = _other_layer(node)
    left_over = constants.any() and not (
        other is not None and scale_producer(affine, other, np.ones_like(constants), constants)
    )
    affine.take(str(node.inputs[1].name), chosen, rows.axis)  # type: ignore[union-attr]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        name = str(node.inputs[2].name)
        affine.shift(name, -constants)
        affine.take(name, chosen, 0)
    zero = int(np.flatnonzero(~rows.live[chosen])[0])
    index = np.full(len(rows.live), zero, np.int64)
    index[chosen[rows.live[chosen]]] = np.flatnonzero(rows.live[chosen])
    name = str(value.name)
    held = set_initializer(graph, fresh_name(graph, f"{name}.rows"), index)
    spread = ir.node("Gather", [value, held], {"axis": AXIS}, name=f"{name}.spread")
    nodes = [spread]
    if left_over:
        shape = (1, -1, *(1,) * (len(value.shape or ()) - 2))
        added = set_initializer(
            graph, fresh_name(graph, f"{name}.constant"), constants.reshape(shape)
        )
        nodes.append(ir.node("Add", [spread.outputs[0], added], name=f"{name}.shifted"))
        spread.outputs[0].name = fresh_name(graph, f"{name}.spread")
        spread.outputs[0].shape, spread.outputs[0].type = value.shape, value.type
    graph.insert_after(node, nodes)
    take_over(graph, value, nodes[-1].outputs[0])
    spread.replace_input_with(0, value)
    value.name = fresh_name(graph, f"{name}.live")
    value.shape = ir.Shape([*value.shape[:AXIS], width, *value.shape[AXIS + 1 :]])  # type: ignore[index]


def _other_layer(node: ir.Node) -> ir.Node | None:
    """The layer that computes the other operand of the sum that alone reads this one's output."""
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    other = uses[0].node.inputs[1 - uses[0].idx]
    producer = None if other is None else other.producer()
    if other is None or producer is None or producer.op_type not in {"Conv", "ConvTranspose"}:
        return None
    alone = len(tuple(other.uses())) == 1 and not other.is_graph_output()
    same = static_shape(other) == static_shape(node.outputs[0])
    weights = [value for value in producer.inputs[1:] if value is not None]
    owned = all(own_weight(value) and constant(value) is not None for value in weights)
    return producer if alone and same and owned and output_axis(producer) is not None else None
