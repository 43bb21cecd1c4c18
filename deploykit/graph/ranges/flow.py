"""Channels and their ranges through a whole graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant
from deploykit.graph.passes.affine import own_weight
from deploykit.graph.ranges.channels import Channels, PinnedAtoms
from deploykit.graph.ranges.layers import Layer, layer_of
from deploykit.graph.ranges.operators import OPERATORS, Operator, Place
from deploykit.graph.ranges.span import Span, anything
from deploykit.spec.arrays import BoolArray, Float64Array

BORDER_SLOPE: Mapping[str, float] = {
    "DepthToSpace": 1.0,
    "Expand": 1.0,
    "Flatten": 1.0,
    "Gather": 1.0,
    "LogSoftmax": 2.0,
    "Reshape": 1.0,
    "Slice": 1.0,
    "Softmax": 0.5,
    "SpaceToDepth": 1.0,
    "Split": 1.0,
    "Tile": 1.0,
    "Transpose": 1.0,
}
"""max |y' - y| / max |x' - x| of operators that mix or move channels; others are not bounded.

Softmax: dy_i = y_i (dx_i - sum y_j dx_j), at most 2 y_i (1 - y_i) max |dx| <= max |dx| / 2.
"""


@dataclass(frozen=True)
class Flow:
    """The channels of every tensor that a graph computes, each set of coupled ones one number.

    channels: by tensor. read: by layer node, the channels as it reads them. layers: in graph order.
    places: nodes that the operator table bounds; a node in neither is a border.
    pinned: [sets], sets that hold a channel that has to stay.
    """

    graph: ir.Graph
    channels: Mapping[str, Channels]
    read: Mapping[ir.Node, Channels]
    layers: Mapping[ir.Node, Layer]
    places: Mapping[ir.Node, tuple[Operator, Place]]
    pinned: BoolArray

    @property
    def sets(self) -> int:
        """One more than the largest number of a set."""
        return len(self.pinned)


AtLayer = Callable[[Layer, Span, Channels], Span]
"""The range of a layer's output, from that of its input and the output's channels."""


def trace(graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> Flow:
    """Couple the channels of a graph whose tensors have these shapes, for any number of samples."""
    atoms = PinnedAtoms()
    channels: dict[str, Channels] = {}
    read: dict[ir.Node, Channels] = {}
    layers: dict[ir.Node, Layer] = {}
    places: dict[ir.Node, tuple[Operator, Place]] = {}
    for value in graph.inputs:
        if value.name not in graph.initializers:
            channels[str(value.name)] = _border(atoms, shapes[str(value.name)])
    for node in graph:
        output = str(node.outputs[0].name)
        layer = layer_of(node)
        if layer is not None:
            source = channels[_name(node.inputs[0])]
            layers[node] = layer
            read[node] = _as_read(atoms, layer, source, len(shapes[_name(node.inputs[0])]))
            channels[output] = _computed(atoms, layer, read[node], len(shapes[output]))
            continue
        inputs = tuple(None if v is None else channels.get(str(v.name)) for v in node.inputs)
        row = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        found = None
        if row is not None and _is_known(node, channels):
            held = tuple(_shape(value, shapes) for value in node.inputs)
            place = Place(node, inputs, held, shapes[output])
            found = row.couple(place, atoms) if place.tensors else None
            places[node] = (row, place)
        if found is None or len(node.outputs) > 1:
            places.pop(node, None)
            for source_channels in inputs:
                if source_channels is not None:
                    atoms.pin(source_channels.atoms)
            for value in node.outputs:
                if value.name and str(value.name) in shapes:
                    channels[str(value.name)] = _border(atoms, shapes[str(value.name)])
            continue
        channels[output] = found
    for value in _every(graph):
        held_outside = any(use.node.graph is not graph for use in value.uses())
        if str(value.name) in channels and (value.is_graph_output() or held_outside):
            atoms.pin(channels[str(value.name)].atoms)
    sets, pinned = atoms.settle()
    final = {name: Channels(c.axis, sets[c.atoms]) for name, c in channels.items()}
    as_read = {node: Channels(c.axis, sets[c.atoms]) for node, c in read.items()}
    return Flow(graph, final, as_read, layers, places, pinned)


def spans(
    flow: Flow, largest: Mapping[str, float], at_layer: AtLayer, kinds: int
) -> dict[str, Span]:
    """The range of every channel, from the graph's input on.

    largest: a bound of |x| by tensor, which no range exceeds. kinds: of errors that are followed,
    all zero at the graph's input.
    """
    known: dict[str, Span] = {}
    for value in flow.graph.inputs:
        name = str(value.name)
        if name in flow.channels:
            count = len(flow.channels[name])
            known[name] = anything(count, np.zeros(kinds)).within(largest.get(name, np.inf))
    for node in flow.graph:
        if node in flow.layers:
            results = [_layer(flow, node, known, at_layer)]
        elif node in flow.places:
            operator, place = flow.places[node]
            given = [None if v is None else known.get(str(v.name)) for v in node.inputs]
            results = [operator.span(place, given, flow.channels[str(node.outputs[0].name)])]
        else:
            error = _border_error(node, known, kinds)
            counts = [flow.channels.get(str(value.name)) for value in node.outputs]
            results = [anything(0 if c is None else len(c), error) for c in counts]
        for value, span in zip(node.outputs, results, strict=True):
            name = str(value.name)
            if name in flow.channels:
                known[name] = span.within(largest.get(name, np.inf))
    return known


def read_span(flow: Flow, node: ir.Node, known: Mapping[str, Span]) -> Span:
    """The range of a layer's input channels as it reads them."""
    name = _name(node.inputs[0])
    span = known[name]
    if np.array_equal(flow.read[node].atoms, flow.channels[name].atoms):
        return span
    return Span(*(_over_all(held, flow.layers[node].inputs) for held in (
        span.low.min(keepdims=True), span.high.max(keepdims=True),
        span.error.max(axis=0, keepdims=True),
    )))  # fmt: skip


def _over_all(held: Float64Array, count: int) -> Float64Array:
    return np.repeat(held, count, axis=0)


def _layer(flow: Flow, node: ir.Node, known: Mapping[str, Span], at_layer: AtLayer) -> Span:
    output = flow.channels[str(node.outputs[0].name)]
    return at_layer(flow.layers[node], read_span(flow, node, known), output)


def _border_error(node: ir.Node, known: Mapping[str, Span], kinds: int) -> Float64Array:
    worst = np.zeros(kinds)
    for value in node.inputs:
        if value is not None and str(value.name) in known:
            worst = np.maximum(worst, known[str(value.name)].error.max(axis=0, initial=0.0))
    slope = BORDER_SLOPE.get(node.op_type)
    return np.where(worst > 0, np.inf, 0.0) if slope is None else slope * worst


def _as_read(atoms: PinnedAtoms, layer: Layer, source: Channels, rank: int) -> Channels:
    """The source's channels, or new ones that have to stay where the layer sums along others."""
    axis = rank - 1 if layer.axis is None else layer.axis
    if not own_weight(layer.weight):
        atoms.pin(source.atoms)
    if source.axis == axis and len(source) == layer.inputs:
        return source
    atoms.pin(source.atoms)
    fresh = atoms.fresh((layer.inputs,))
    atoms.pin(fresh)
    return Channels(axis, fresh)


def _computed(atoms: PinnedAtoms, layer: Layer, source: Channels, rank: int) -> Channels:
    if layer.depthwise:
        made = source.atoms[np.arange(layer.outputs) // (layer.outputs // layer.inputs)]
    else:
        made = atoms.fresh((layer.outputs,))
    if not layer.free:
        atoms.pin(made)
    return Channels(rank - 1 if layer.axis is None else layer.axis, made)


def _border(atoms: PinnedAtoms, shape: tuple[int, ...]) -> Channels:
    axis = min(1, len(shape) - 1)
    fresh = atoms.fresh((shape[axis] if shape else 1,))
    atoms.pin(fresh)
    return Channels(max(axis, 0), fresh)


def _is_known(node: ir.Node, channels: Mapping[str, Channels]) -> bool:
    """Whether every input is a constant or a tensor of this graph."""
    return all(
        value is None or constant(value) is not None or str(value.name) in channels
        for value in node.inputs
    )


def _shape(value: ir.Value | None, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    held = constant(value)
    if held is not None:
        return tuple(held.shape)
    return () if value is None else shapes[str(value.name)]


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)


def _every(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]
