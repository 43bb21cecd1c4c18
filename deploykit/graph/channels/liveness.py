"""Which channels of which tensors are read, and which are constant.

Channels that can only stay or go together (through elementwise operators, residual sums, flatten)
form one *atom*. The analysis is a least fixed point: nothing is alive but what the graph's outputs
and the operators without a rule need, then whatever live channels read with a non-zero weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.mixing import range_growth
from deploykit.graph.channels.rule import (
    Constants,
    Rule,
    activations,
    channel_count,
    unknown,
)
from deploykit.graph.channels.table import rule_for
from deploykit.graph.edit import label
from deploykit.spec.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Merge:
    """Constant channels of one tensor that become one. ratio: c_j / c_into by merged channel j."""

    into: int
    ratio: Mapping[int, float]


@dataclass(frozen=True)
class Liveness:
    """The analysis' result. atoms: [C] ids by tensor; alive: [atoms]; constants: [C] by tensor."""

    rules: Mapping[ir.Node, Rule | None]
    atoms: Mapping[str, IntArray]
    constants: Mapping[str, Constants]
    alive: BoolArray
    merges: Mapping[str, Merge]
    borders: tuple[str, ...]
    range_growth: Mapping[str, float]

    def kept(self, tensor: str) -> IntArray:
        """Channels of a tensor that stay, ascending."""
        return np.flatnonzero(self.alive[self.atoms[tensor]])

    def read(self, node: ir.Node) -> BoolArray:
        """Channels of input 0 that the node's own sums read, constant or not; none if it has none.

        Those of output channels that stay and are not constant themselves.
        """
        rule = self.rules[node]
        live = _live_rows(node, self.atoms, self.constants, self.alive)
        read = None if rule is None else rule.reads(node, live)
        source = self.atoms[str(activations(node)[0].name)]
        return np.zeros(len(source), dtype=bool) if read is None else read


def analyse(graph: ir.Graph) -> Liveness:
    """Run the analysis on a canonical graph (see passes.canonical)."""
    rules = {node: rule_for(node) for node in graph}
    tensors = _channel_tensors(graph)
    atoms, count = _atoms(rules, tensors)
    constants = _constants(graph, rules, tensors)
    alive = np.zeros(count, dtype=bool)
    borders = _pin(graph, rules, tensors, atoms, alive)
    merges: dict[str, Merge] = {}
    growth: dict[str, float] = {}
    while True:
        _propagate(graph, rules, atoms, constants, alive)
        before = int(alive.sum())
        merges, growth = _collapse(rules, atoms, constants, alive)
        if int(alive.sum()) == before and not _keep_one(atoms, constants, alive):
            return Liveness(rules, atoms, constants, alive, merges, borders, growth)


def _channel_tensors(graph: ir.Graph) -> dict[str, int]:
    """Channel count by name of every tensor that has a channel axis."""
    values = list(graph.inputs) + [output for node in graph for output in node.outputs]
    counts = {str(value.name): channel_count(value) for value in values}
    return {name: count for name, count in counts.items() if count is not None}


def _atoms(
    rules: Mapping[ir.Node, Rule | None], tensors: Mapping[str, int]
) -> tuple[dict[str, IntArray], int]:
    """Union-find over (tensor, channel) along every operator's links."""
    offset: dict[str, int] = {}
    total = 0
    for name, count in tensors.items():
        offset[name] = total
        total += count
    parent = np.arange(total)

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = int(parent[item])
        return item

    for node, rule in rules.items():
        if rule is None:
            continue
        sources = activations(node)
        out = offset[str(node.outputs[0].name)]
        for link in rule.links(node):
            source = offset[str(sources[link.input].name)]
            for a, b in zip(link.source, link.target, strict=True):
                parent[root(source + int(a))] = root(out + int(b))
    roots = np.array([root(item) for item in range(total)], dtype=np.int64)
    _, ids = np.unique(roots, return_inverse=True)
    atoms: dict[str, IntArray] = {
        name: ids[start : start + tensors[name]] for name, start in offset.items()
    }
    return atoms, int(ids.max()) + 1 if total else 0


LARGEST = float(np.finfo(np.float32).max)
"""A constant beyond it could not be restated as a bias; such a channel counts as varying."""


def _constants(
    graph: ir.Graph, rules: Mapping[ir.Node, Rule | None], tensors: Mapping[str, int]
) -> dict[str, Constants]:
    constants = {
        str(v.name): unknown(tensors[str(v.name)]) for v in graph.inputs if str(v.name) in tensors
    }
    for node in graph:
        rule = rules[node]
        for output in node.outputs:
            name = str(output.name)
            if name not in tensors:
                continue
            if rule is None:
                constants[name] = unknown(tensors[name])
            else:
                given = [constants[str(value.name)] for value in activations(node)]
                found = rule.constants(node, given)
                constants[name] = np.where(np.abs(found) <= LARGEST, found, np.nan)
    return constants


def _pin(
    graph: ir.Graph,
    rules: Mapping[ir.Node, Rule | None],
    tensors: Mapping[str, int],
    atoms: Mapping[str, IntArray],
    alive: BoolArray,
) -> tuple[str, ...]:
    """Graph inputs, graph outputs and everything an operator without a rule touches stay whole.

    So do tensors that a subgraph (the branch of an If, say) reads from outside.
    """
    borders = []
    computed = [output for node in graph for output in node.outputs]
    captured = [value for value in computed if any(use.node not in rules for use in value.uses())]
    for value in (*graph.inputs, *graph.outputs, *captured):
        if str(value.name) in tensors:
            alive[atoms[str(value.name)]] = True
    for node, rule in rules.items():
        if rule is not None:
            continue
        borders.append(f"{label(node)} ({node.op_type})")
        for touched in (*activations(node), *node.outputs):
            if str(touched.name) in tensors:
                alive[atoms[str(touched.name)]] = True
    return tuple(borders)


def _live_rows(
    node: ir.Node,
    atoms: Mapping[str, IntArray],
    constants: Mapping[str, Constants],
    alive: BoolArray,
) -> BoolArray:
    """Output channels that stay and have to be computed (a constant one is only stated)."""
    name = str(node.outputs[0].name)
    return np.asarray(alive[atoms[name]] & np.isnan(constants[name]))


def _propagate(
    graph: ir.Graph,
    rules: Mapping[ir.Node, Rule | None],
    atoms: Mapping[str, IntArray],
    constants: Mapping[str, Constants],
    alive: BoolArray,
) -> None:
    """Mark what live channels read; residual sums make cycles of atoms, hence the outer loop."""
    order = list(graph)
    while True:
        before = int(alive.sum())
        for node in reversed(order):
            rule = rules[node]
            if rule is None:
                continue
            read = rule.reads(node, _live_rows(node, atoms, constants, alive))
            if read is None:
                continue
            source = str(activations(node)[0].name)
            varying = np.isnan(constants[source])
            alive[atoms[source][read & varying]] = True
        if int(alive.sum()) == before:
            return


def _collapse(
    rules: Mapping[ir.Node, Rule | None],
    atoms: Mapping[str, IntArray],
    constants: Mapping[str, Constants],
    alive: BoolArray,
) -> tuple[dict[str, Merge], dict[str, float]]:
    """Per tensor with padded readers: one non-zero constant stays for all, or all stay apart.

    The one that stays is the largest in magnitude, so that every ratio is at most 1. They stay
    apart where the merged kernel would exceed a reader's other weights in some output channel: it
    would stretch that channel's quantization range.
    """
    wanted: dict[str, list[tuple[ir.Node, BoolArray]]] = {}
    for node, rule in rules.items():
        if rule is None or rule.absorbs(node):
            continue
        read = rule.reads(node, _live_rows(node, atoms, constants, alive))
        if read is not None and read.any():
            wanted.setdefault(str(activations(node)[0].name), []).append((node, read))
    merges: dict[str, Merge] = {}
    growth: dict[str, float] = {}
    for tensor, uses in wanted.items():
        values = constants[tensor]
        read_by_any = np.any([read for _, read in uses], axis=0)
        members = np.flatnonzero(read_by_any & ~np.isnan(values) & (values != 0.0))
        if len(members) == 0:
            continue
        staying = members[alive[atoms[tensor][members]]]
        candidates = staying if len(staying) else members
        into = int(candidates[np.argmax(np.abs(values[candidates]))])
        gone = [int(j) for j in members if j != into and not alive[atoms[tensor][j]]]
        ratios = values[gone] / values[into]
        stretch = {
            label(node): range_growth(
                node, _live_rows(node, atoms, constants, alive), values, gone, into, ratios
            )
            for node, _ in uses
        }
        if not max(stretch.values()) <= 1.0:
            alive[atoms[tensor][members]] = True
            continue
        alive[atoms[tensor][into]] = True
        if gone:
            merges[tensor] = Merge(into, dict(zip(gone, ratios.tolist(), strict=True)))
            growth.update(stretch)
    return merges, growth


def _keep_one(
    atoms: Mapping[str, IntArray], constants: Mapping[str, Constants], alive: BoolArray
) -> bool:
    """A tensor of no channels is not a legal graph: one stays in the last such tensor, if any.

    A constant one where there is one, since computing it needs no other channel. The tensors
    before it may owe their channel to what this one reads, hence one tensor at a time.
    """
    for name in reversed(list(atoms)):
        if len(atoms[name]) and not alive[atoms[name]].any():
            alive[atoms[name][int(np.argmin(np.isnan(constants[name])))]] = True
            return True
    return False
