"""Tensors that share one quantization, and the sums that keep apart those that cannot.

A concatenation and what it joins have one scale, for runtimes that rescale while they join round
differently; what a maximum compares has one too. Where a part has a range of its own (a Relu that
saturates at zero beside a tensor with negative values, a sigmoid, a network's input), the part is
added to zero: a sum that rescales.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from deploykit.quantize.nodes import bound_of, function_of, reaches_beyond
from deploykit.quantize.operators import JOINING, SHARING, Kind
from deploykit.quantize.scales import FIXED
from deploykit.quantize.structure import Layer, build_structure
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network
from deploykit.spec.quantized import Quantization
from deploykit.spec.whole_numbers import real_inputs

RESCALED = ".rescaled"
"""Ends the names of tensors that are added to zero."""


def fixed_quantization(layer: Layer) -> Quantization | None:
    """What the output of a tabulated function must have where a runtime insists; else None."""
    return FIXED.get(function_of(layer.nodes[0])) if layer.kind is Kind.LOOKUP else None


class Bounds(NamedTuple):
    """Real values at which a range ends for good; None where it is open."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """tensors: that share one quantization. makers: what computes numbers in it, not moves them.

    bounds: that hold for all of them.
    """

    tensors: tuple[str, ...]
    makers: tuple[str, ...]
    bounds: Bounds


def find_groups(layers: Sequence[Layer], sources: Collection[str]) -> tuple[Group, ...]:
    """Every tensor that is quantized in exactly one group. sources: the graph's inputs."""
    parent: dict[str, str] = {source: source for source in sources}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for layer in layers:
        if layer.kind is Kind.ARG_MAX:
            continue
        parent[layer.output] = layer.output
        if layer.kind in SHARING:
            for name in layer.inputs:
                parent[root(name)] = root(layer.output)
    members: dict[str, list[str]] = {}
    for name in parent:
        members.setdefault(root(name), []).append(name)
    made = {
        layer.output
        for layer in layers
        if layer.kind not in SHARING or reaches_beyond(layer.nodes[0])
    }
    made.update(sources)
    ranges = _ranges(layers, sources)
    return tuple(
        Group(
            tuple(names),
            tuple(name for name in names if name in made),
            _weakest([ranges[name] for name in names if name in made]),
        )
        for names in members.values()
    )


def separate_concats(network: Network) -> Network:
    """The same function, with a sum with zero before each joining layer that needs one."""
    while True:
        layers = build_structure(network)
        edges = _conflicts(layers, real_inputs(network))
        if not edges:
            return network
        network = rescale_inputs(network, edges)


def _conflicts(layers: Sequence[Layer], sources: Collection[str]) -> list[tuple[str, str]]:
    """(joining layer's output, its input) to be rescaled: first within each, then within groups."""
    demands, ranges = _demands(layers, sources), _ranges(layers, sources)
    joins = [layer for layer in layers if layer.kind in JOINING]
    found = [
        (join.output, name)
        for join in joins
        for name in dict.fromkeys(join.inputs)
        if not demands[name] <= {_weakest([ranges[one] for one in join.inputs])}
    ]
    if found:
        return found
    held = {name: group for group in find_groups(layers, sources) for name in group.tensors}
    return [
        (join.output, name)
        for join in joins
        for name in dict.fromkeys(join.inputs)
        if not demands[name] <= {held[name].bounds}
    ]


def _demands(
    layers: Sequence[Layer], sources: Collection[str]
) -> Mapping[str, frozenset[Bounds | None]]:
    """By tensor the bounds that its quantization must have; None: a quantization of its own."""
    found: dict[str, frozenset[Bounds | None]] = {name: frozenset({None}) for name in sources}
    for layer in layers:
        if layer.kind in SHARING:
            found[layer.output] = frozenset().union(*(found[name] for name in layer.inputs))
        elif fixed_quantization(layer) is not None:
            found[layer.output] = frozenset({None})
        elif layer.low is None and layer.high is None:
            found[layer.output] = frozenset()
        else:
            found[layer.output] = frozenset({Bounds(layer.low, layer.high)})
    return found


def _ranges(layers: Sequence[Layer], sources: Collection[str]) -> Mapping[str, Bounds]:
    """By tensor the bounds of its values, as far as activations say."""
    found = {name: Bounds(None, None) for name in sources}
    for layer in layers:
        bound = bound_of(layer.nodes[0])
        if bound is not None:
            found[layer.output] = _compared(layer.kind, found[layer.inputs[0]], bound)
        elif layer.kind in SHARING:
            found[layer.output] = _weakest([found[name] for name in layer.inputs])
        elif layer.output.endswith(RESCALED):
            found[layer.output] = found[layer.inputs[0]]
        elif layer.kind is Kind.LOOKUP:
            found[layer.output] = Bounds(None, None)
        else:
            found[layer.output] = Bounds(layer.low, layer.high)
    return found


def _compared(kind: Kind, source: Bounds, bound: Float64Array) -> Bounds:
    """Of the larger (smaller) of a tensor and a constant: one end stays, the other may move."""
    if kind is Kind.MAXIMUM:
        high = None if source.high is None else max(source.high, float(bound.max()))
        return Bounds(source.low, high)
    low = None if source.low is None else min(source.low, float(bound.min()))
    return Bounds(low, source.high)


def _weakest(bounds: Sequence[Bounds]) -> Bounds:
    """What holds for all of them."""
    lows, highs = [one.low for one in bounds], [one.high for one in bounds]
    low = None if None in lows else min(low for low in lows if low is not None)
    high = None if None in highs else max(high for high in highs if high is not None)
    return Bounds(low, high)


def rescale_inputs(network: Network, edges: Sequence[tuple[str, str]]) -> Network:
    """Let a node read a tensor plus zero. edges: (one of the node's outputs, the tensor)."""
    model = network.model.clone()
    graph = model.graph
    joins = {str(output.name): node for node in graph for output in node.outputs}
    for output, name in edges:
        join = joins[output]
        places = [
            i for i, value in enumerate(join.inputs) if value is not None and value.name == name
        ]
        value = join.inputs[places[0]]
        assert value is not None
        added = _plus_zero(graph, value, f"{name}.in.{output}{RESCALED}")
        graph.insert_before(join, added)
        for place in places:
            join.replace_input_with(place, added.outputs[0])
    return network.rewritten(model)


def rescale_behind(network: Network, names: Sequence[str]) -> Network:
    """Put a sum with zero behind what makes each of these tensors; the sum has the name now."""
    model = network.model.clone()
    graph = model.graph
    made = {str(node.outputs[0].name): node for node in graph}
    for name in names:
        node = made[name]
        value = node.outputs[0]
        added = _plus_zero(graph, value, name)
        added.name = f"{name}{RESCALED}"  # the node before has the tensor's name
        graph.insert_after(node, added)
        ir.convenience.replace_all_uses_with(value, added.outputs[0], replace_graph_outputs=True)
        added.replace_input_with(0, value)
        value.name = f"{name}{RESCALED}.from"
    return network.rewritten(model)


def _plus_zero(graph: ir.Graph, value: ir.Value, called: str) -> ir.Node:
    assert value.shape is not None and value.dtype is not None
    zeros = np.zeros((1,) * len(value.shape), value.dtype.numpy())
    zero = ir.Value(
        name=f"{called}.zero", const_value=ir.tensor(zeros, name=f"{called}.zero"),
        shape=ir.Shape(zeros.shape), type=ir.TensorType(value.dtype),
    )  # fmt: skip
    graph.register_initializer(zero)
    added = ir.node("Add", [value, zero], name=called)
    (result,) = added.outputs
    result.name, result.shape, result.type = called, value.shape, value.type
    return added
