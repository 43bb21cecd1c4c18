"""Which channels can only stay or go together: labels, forward through the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.channels.rule import Operator, Site, activations
from deploykit.graph.channels.table import candidates
from deploykit.graph.edit import label
from deploykit.spec.arrays import BoolArray
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Structure:
    """What the graph means for channels, before anything is decided.

    sites: one per node, in order. labels: final atoms by tensor. count: of atoms.
    borders: nodes without a rule. pinned: by atom, whether a border holds it.
    """

    sites: tuple[Site, ...]
    labels: Mapping[str, Labels]
    count: int
    borders: tuple[str, ...]
    pinned: BoolArray


def build_structure(graph: ir.Graph) -> Structure:
    """Labels forward through the graph, joined where channels meet."""
    atoms = Atoms()
    labels: dict[str, Labels] = {}
    sites: list[Site] = []
    held: list[str] = []
    nodes = list(graph)
    for value in graph.inputs:
        if value.name not in graph.initializers:
            _uncut(value, atoms, labels, held)
    for node in nodes:
        sources = activations(node)
        inputs = tuple(str(value.name) for value in sources)
        outputs = tuple(str(value.name) for value in node.outputs if value.name)
        operator = _labelled(node, inputs, outputs, atoms, labels)
        if operator is None:
            held.extend(name for name in inputs if name in labels)
            for value in node.outputs:
                if value.name:
                    _uncut(value, atoms, labels, held)
        sites.append(Site(node, operator, inputs, outputs))
    for value in graph.outputs:
        if str(value.name) not in labels:
            _uncut(value, atoms, labels, held)  # A constant of the graph.
    inside = set(nodes)
    for node in nodes:
        for value in node.outputs:
            if any(use.node not in inside for use in value.uses()):
                held.append(str(value.name))  # The branch of an If, say, reads it from outside.
    ids, count = atoms.resolve()
    final = {name: ids[array] for name, array in labels.items()}
    pinned = np.zeros(count, dtype=bool)
    for name in held:
        pinned[final[name]] = True
    borders = tuple(
        f"{label(site.node)} ({site.node.op_type})"
        for site in sites
        if site.operator is None and site.inputs
    )
    return Structure(tuple(sites), final, count, borders, pinned)


def _uncut(value: ir.Value, atoms: Atoms, labels: dict[str, Labels], held: list[str]) -> None:
    """A tensor that nothing is cut from; an image or a vector has its channels told apart."""
    shape = static_shape(value)
    rank = 1 if value.shape is None else len(value.shape)
    sizes = [1] * rank
    if shape is not None and rank in (2, 4, 5):
        sizes[1] = shape[1]
    labels[str(value.name)] = atoms.fresh(sizes)
    held.append(str(value.name))


def _labelled(
    node: ir.Node,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    atoms: Atoms,
    labels: dict[str, Labels],
) -> Operator | None:
    """The first row that models the node with these labels; its output labels are set."""
    if any(static_shape(output) is None for output in node.outputs if output.name):
        return None
    given = [labels[name] for name in inputs]
    if not given:
        return None
    for operator in candidates(node):
        found = operator.label(given, atoms)
        shapes = [static_shape(value) or () for value in node.outputs if value.name]
        if found is not None and _fit(found, shapes):
            labels.update(zip(outputs, found, strict=False))
            return operator
    return None


def _fit(labels: Sequence[Labels], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether there are labels for every output, each axis with one entry or the output's size."""
    return len(labels) >= len(shapes) and all(
        held.ndim == len(shape)
        and all(have in {1, size} for have, size in zip(held.shape, shape, strict=True))
        for held, shape in zip(labels, shapes, strict=False)
    )
