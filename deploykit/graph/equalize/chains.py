"""Which channels have to share a factor, and which have to stay as they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.edit import constant, label
from deploykit.graph.equalize.layers import WeightedLayer, weighted_layer
from deploykit.graph.equalize.rules import RULES
from deploykit.spec.arrays import AnyArray, BoolArray, IntArray
from deploykit.spec.network import Network, static_shape

INPUT = "they come from the network's input"
OUTPUT = "they are an output of the network"
GRID = "a tensor, or a weight that reads them, came with a grid"
TIED = "a layer that makes or reads them shares its weights"
EXTREME = "their weights hold numbers too small or too large for float32 to scale exactly"

REACH = 20
"""Largest exponent of a factor."""
SAFE = 2.0**-80, 2.0**80
"""Between these, factors of two channels, 2^20 each, leave a float32 normal."""

FUSED = frozenset(("Relu", "Clip"))
FUSING = frozenset(("Conv", "ConvTranspose", "Gemm", "Add", "Sub", "Mul"))


@dataclass(frozen=True)
class Chain:
    """Tensors whose ranges and channels hang together.

    atoms: [n], ascending; free: [n], which of them may be scaled. rounded: the tensors that become
    integers; what a Relu behind a layer is taken into does not. pinned: why the others may not be
    scaled, the commonest reason first.
    """

    atoms: IntArray
    free: BoolArray
    rounded: tuple[str, ...]
    makers: tuple[WeightedLayer, ...]
    readers: tuple[WeightedLayer, ...]
    pinned: tuple[str, ...]


@dataclass(frozen=True)
class Channels:
    """labels: [C] by tensor, the atom of each channel: equal atoms share a factor."""

    labels: Mapping[str, Labels]
    count: int
    layers: tuple[WeightedLayer, ...]
    chains: tuple[Chain, ...]


class _Pins:
    """Why labels are pinned, as rules come upon it."""

    def __init__(self) -> None:
        self._found: list[tuple[Labels, str]] = []

    def add(self, labels: Labels, why: str) -> None:
        self._found.append((labels, why))

    def by_atom(self, atoms: IntArray) -> dict[int, str]:
        """The first reason of each final atom."""
        reasons: dict[int, str] = {}
        for labels, why in self._found:
            for atom in np.unique(atoms[labels]):
                reasons.setdefault(int(atom), why)
        return reasons


def find_channels(network: Network) -> Channels:
    """Labels of all tensors with a channel axis, and the chains that they make."""
    graph, atoms, pins = network.model.graph, Atoms(), _Pins()
    labels: dict[str, Labels] = {}
    layers: list[WeightedLayer] = []
    for value in graph.inputs:
        labels[str(value.name)] = _fresh(value, atoms)
        pins.add(labels[str(value.name)], INPUT)
    for node in graph:
        for value in _activations(node):
            if value.name not in labels:
                labels[str(value.name)] = _fresh(value, atoms)
                pins.add(labels[str(value.name)], INPUT)
        read = [labels[str(value.name)] for value in _activations(node)]
        layer = weighted_layer(node)
        made: list[Labels] | str
        if layer is not None:
            layers.append(layer)
            made = [_fresh(node.outputs[0], atoms)]
        else:
            made = _through(node, read, atoms)
        if isinstance(made, str):
            why = f"{node.op_type} {label(node)!r} {made}"
            made = [_fresh(value, atoms) for value in node.outputs]
            for one in (*read, *made):
                pins.add(one, why)
        for value, one in zip(node.outputs, made, strict=True):
            labels[str(value.name)] = one
    for value in graph.outputs:
        pins.add(labels[str(value.name)], OUTPUT)
    _pin_numbers(network, layers, labels, pins)
    final, count = atoms.resolve()
    resolved = {name: final[held] for name, held in labels.items()}
    taken_in = {str(value.name) for node in graph for value in node.outputs if _taken_in(value)}
    chains = _chains(resolved, count, layers, pins.by_atom(final), taken_in)
    return Channels(resolved, count, tuple(layers), tuple(chains))


def _activations(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value.const_value is None]


def _fresh(value: ir.Value, atoms: Atoms) -> Labels:
    """One atom a channel; a single one where a tensor has no such axis."""
    shape = static_shape(value)
    return atoms.fresh((shape[1] if shape is not None and len(shape) > 1 else 1,))


def _through(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    rule = RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    if rule is None:
        return "takes no factor through"
    for value in (*_activations(node), *node.outputs):
        shape = static_shape(value)
        if shape is None or len(shape) < 2 or value.dtype is None:
            return "has a tensor without channels"
        if not value.dtype.is_floating_point():
            return "has integers"
    made = rule(node, read, atoms)
    if isinstance(made, str):
        return made
    for value, one in zip(node.outputs, made, strict=True):
        if len(one) != (static_shape(value) or (0, 0))[1]:
            return "broadcasts channels"
    return made


def _pin_numbers(
    network: Network, layers: Sequence[WeightedLayer], labels: Mapping[str, Labels], pins: _Pins
) -> None:
    """What the numbers themselves forbid: given grids, shared weights, far exponents."""
    initializers = network.model.graph.initializers
    for name in network.given.activations:
        if name in labels:
            pins.add(labels[name], GRID)
    digests = Counter(_digest(initializers[layer.weight]) for layer in layers)
    for layer in layers:
        source, output = labels[layer.source], labels[layer.output]
        if digests[_digest(initializers[layer.weight])] > 1:
            pins.add(source, TIED)
            pins.add(output, TIED)
        if layer.weight in network.given.weights:
            # The scale of a grid follows rows along the weight's first axis, and no columns.
            if layer.columns.shape[1] > 1:
                pins.add(source, GRID)
            if not layer.rows_first:
                pins.add(output, GRID)
        weight = np.asarray(constant(initializers[layer.weight]))
        rows, columns = layer.rows(weight), source[layer.columns]
        far = np.asarray(_far(rows).any(axis=2))
        pins.add(output[np.any(far, axis=1)], EXTREME)
        pins.add(columns[far], EXTREME)
        if layer.bias is not None:
            held = np.asarray(constant(initializers[layer.bias]))
            pins.add(output[_far(held)], EXTREME)


def _taken_in(value: ir.Value) -> bool:
    """Whether only a Relu or Clip reads it, which the operator before takes in."""
    node, uses = value.producer(), tuple(value.uses())
    if node is None or node.op_type not in FUSING or len(uses) != 1 or value.is_graph_output():
        return False
    return uses[0].node.op_type in FUSED


def _far(values: AnyArray) -> BoolArray:
    size = np.abs(values.astype(np.float64))
    return np.asarray((size != 0) & ~((size > SAFE[0]) & (size < SAFE[1])))


def _digest(value: ir.Value) -> tuple[object, ...]:
    array = np.asarray(constant(value))
    return array.shape, hashlib.sha256(array.tobytes()).digest()


def _chains(
    labels: Mapping[str, Labels],
    count: int,
    layers: Sequence[WeightedLayer],
    reasons: Mapping[int, str],
    taken_in: Collection[str],
) -> Iterator[Chain]:
    """In the order of the first tensor of each, where layers with weights make some.

    The network's own outputs are none where nothing else reads them."""
    together = Atoms()
    together.fresh((count,))
    for held in labels.values():
        together.join(held, held[:1])
    of_atom, _ = together.resolve()
    members: dict[int, list[str]] = {}
    for name, held in labels.items():
        if held.size:
            members.setdefault(int(of_atom[held[0]]), []).append(name)
    for chain, tensors in members.items():
        names = set(tensors)
        makers = tuple(layer for layer in layers if layer.output in names)
        readers = tuple(layer for layer in layers if layer.source in names)
        inside = np.flatnonzero(of_atom == chain)
        told = Counter(reasons[int(atom)] for atom in inside if int(atom) in reasons)
        if not makers or (not readers and set(told) == {OUTPUT}):
            continue
        free = np.array([int(atom) not in reasons for atom in inside])
        why = tuple(reason for reason, _ in told.most_common())
        rounded = tuple(name for name in tensors if name not in taken_in)
        yield Chain(inside, free, rounded, makers, readers, why)
