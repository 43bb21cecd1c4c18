"""Which channels of which tensors are read, and which are constant.

Channels that can only stay or go together (through elementwise operators, residual sums, flatten)
form one *atom*, see labels. The analysis is a least fixed point: nothing is needed but what the
graph's outputs and the operators without a rule need, then whatever needed channels read with a
non-zero weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.align import align
from deploykit.graph.channels.collapse import Collapse, Limits, collapse
from deploykit.graph.channels.concat import Concat
from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.elementwise import Unary, WithConstant
from deploykit.graph.channels.joining import Join
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.operands import anywhere, reduced
from deploykit.graph.channels.rule import Constants, Merge, Operator, Site, unknown
from deploykit.graph.channels.structure import Structure, build_structure
from deploykit.graph.options import DeadOutputs, Measured, MultipleOf
from deploykit.spec.arrays import BoolArray, Float64Array
from deploykit.spec.removal import WidenedBlock

LARGEST = float(np.finfo(np.float32).max)
"""A constant beyond it could not be restated as a bias; such a channel counts as varying."""


@dataclass(frozen=True)
class Liveness:
    """The analysis' result.

    needed: by atom, whether anybody reads its value. kept: whether it stays, so that every tensor
    is rectangular and every node legal. constants: by tensor, as they are after the merges;
    constants_before: as the graph has them. merges: by tensor. range_growth: by reader.
    """

    structure: Structure
    needed: BoolArray
    kept: BoolArray
    constants_before: Mapping[str, Constants]
    constants: Mapping[str, Constants]
    merges: Mapping[str, Merge]
    range_growth: Mapping[str, float]
    widened: tuple[WidenedBlock, ...]

    def live(self, tensor: str) -> BoolArray:
        """Entries of a tensor that are needed and have to be computed."""
        needed = self.needed[self.structure.labels[tensor]]
        return np.asarray(needed & np.isnan(self.constants_before[tensor]))


def analyse(
    graph: ir.Graph,
    dead_outputs: DeadOutputs = DeadOutputs.KEEP,
    whole: Iterable[str] = (),
    alignment: MultipleOf | Measured | None = None,
    limits: Limits | None = None,
) -> Liveness:
    """Run the analysis on a canonical graph (see passes.canonical).

    whole: tensors of which nothing may go. limits: of merging constants.
    """
    structure = build_structure(graph)
    constants, closed = forward(graph, structure)
    rigid = structure.pinned.copy()
    for tensor in whole:
        rigid[structure.labels[tensor]] = True
    for value in graph.outputs:
        labels = structure.labels[str(value.name)]
        fixed = ~np.isnan(constants[str(value.name)]) & (dead_outputs is DeadOutputs.DROP)
        if fixed.all():
            fixed.reshape(-1)[:1] = False  # Something has to be left to put out.
        rigid[labels[~fixed]] = True
    needed = rigid.copy()
    for value in graph.outputs:
        rigid[structure.labels[str(value.name)].reshape(-1)] = True
    # Kept as a zero, a channel that an activation closed to a number would no longer hold it.
    fragile = _fragile(structure) | closed
    found = Collapse({}, {}, {})
    while True:
        _propagate(structure, constants, needed)
        before = int(needed.sum())
        found = collapse(
            structure.sites, structure.labels, constants, needed, rigid, limits or Limits(),
            lambda overrides: restated(structure, constants, overrides),
        )  # fmt: skip
        if int(needed.sum()) != before:
            continue
        kept = needed.copy()
        complete(structure, constants, kept)
        widened: tuple[WidenedBlock, ...] = ()
        if alignment is not None:
            widened = align(structure.sites, structure.labels, kept, fragile, alignment)
            complete(structure, constants, kept)
        padded = kept & ~needed & fragile
        if not padded.any():
            after = restated(structure, constants, found.overrides)
            return Liveness(
                structure,
                needed,
                kept,
                constants,
                after,
                found.merges,
                found.range_growth,
                widened,
            )
        needed |= padded


def forward(graph: ir.Graph, structure: Structure) -> tuple[dict[str, Constants], BoolArray]:
    """Constants of every tensor; and by atom, whether it is one only behind an activation."""
    constants = {
        str(value.name): unknown(structure.labels[str(value.name)])
        for value in (*graph.inputs, *graph.outputs)
        if str(value.name) in structure.labels
    }
    borders: dict[str, Float64Array] = {}
    closed = np.zeros(structure.count, dtype=bool)
    for site in structure.sites:
        made = _through(site, structure, constants)
        here = _close_borders(site, constants, borders, made)
        if here is not None:
            closed[structure.labels[site.outputs[0]][here]] = True
        constants.update(made)
    return constants, closed


def _close_borders(
    site: Site,
    constants: Mapping[str, Constants],
    borders: dict[str, Float64Array],
    made: dict[str, Constants],
) -> BoolArray | None:
    """A padded depthwise convolution makes of a constant a few values, one for each border.

    An activation may close all of them to the same one, and the channel is constant again.
    borders: by tensor, [C, P] those values, NaN for other channels. Returns which entries of the
    output were closed, in the shape of its labels; None where nothing could be.
    """
    source = site.inputs[0] if site.inputs else ""
    if isinstance(site.operator, Depthwise):
        found = site.operator.border_values(constants[source])
        if found is not None:
            borders[site.outputs[0]] = found
    if not isinstance(site.operator, Unary) or source not in borders:
        return None
    name = site.outputs[0]
    with np.errstate(all="ignore"):
        values = np.asarray(site.operator.function(borders[source]), dtype=np.float64)
    if made[name].size != len(values):
        return None
    equal = (values == values[:, :1]).all(axis=1) & (np.abs(values[:, 0]) <= LARGEST)
    held = made[name].reshape(-1)
    here = np.isnan(held) & equal
    made[name] = np.where(here, values[:, 0], held).reshape(made[name].shape)
    borders[name] = np.where(equal[:, None], np.nan, values)
    return np.asarray(here.reshape(made[name].shape))


def restated(
    structure: Structure, constants: Mapping[str, Constants], overrides: Mapping[str, Constants]
) -> dict[str, Constants]:
    """Constants of every tensor where some layers state other ones (NaN: the same as before).

    A layer that reads a restated constant divides its kernel by as much, so its output stays.
    """
    after = dict(constants)
    for site in structure.sites if overrides else ():
        if isinstance(site.operator, Mixing):
            name = site.outputs[0]
            if name in overrides:
                new = overrides[name]
                after[name] = np.where(np.isnan(new), constants[name], new)
        else:
            made = _through(site, structure, after)
            if isinstance(site.operator, Unary):
                # What an activation closed to one value is of no restated channel.
                name = site.outputs[0]
                closed = np.isnan(constants[site.inputs[0]]) & ~np.isnan(constants[name])
                made[name] = np.where(closed, constants[name], made[name])
            after.update(made)
    return after


def _through(
    site: Site, structure: Structure, constants: Mapping[str, Constants]
) -> dict[str, Constants]:
    """Constants of a node's outputs, in the shapes of their labels."""
    if site.operator is None:
        return {name: unknown(structure.labels[name]) for name in site.outputs}
    found = site.operator.constants([constants[name] for name in site.inputs])
    fitted: dict[str, Constants] = {}
    for name, values in zip(site.outputs, found, strict=False):
        shape = structure.labels[name].shape
        values = values if values.shape == shape else reduced(values, shape)
        with np.errstate(invalid="ignore"):
            fitted[name] = np.where(np.abs(values) <= LARGEST, values, np.nan)
    return fitted


def _propagate(structure: Structure, constants: Mapping[str, Constants], needed: BoolArray) -> None:
    """Mark what needed channels read; residual sums make cycles of atoms, hence the outer loop."""
    labels = structure.labels
    while True:
        before = int(needed.sum())
        for site in reversed(structure.sites):
            if site.operator is None:
                continue
            live = [needed[labels[name]] & np.isnan(constants[name]) for name in site.outputs]
            read = site.operator.reads(live)
            if read is not None:
                source = site.inputs[0]
                wanted = np.broadcast_to(
                    read, np.broadcast_shapes(read.shape, labels[source].shape)
                )
                atoms = np.broadcast_to(labels[source], wanted.shape)
                varying = np.broadcast_to(np.isnan(constants[source]), wanted.shape)
                needed[atoms[wanted & varying]] = True
            given = [constants[name] for name in site.inputs]
            for name, wanted_whole in zip(
                site.inputs, site.operator.needs(live, given), strict=False
            ):
                if wanted_whole is not None:
                    whole = np.broadcast_to(wanted_whole, labels[name].shape)
                    needed[labels[name][whole]] = True
        if int(needed.sum()) == before:
            return


def complete(structure: Structure, constants: Mapping[str, Constants], kept: BoolArray) -> None:
    """Mark what has to stay besides, so that every tensor is rectangular and every node legal."""
    while True:
        before = int(kept.sum())
        for site in reversed(structure.sites):
            if site.operator is None:
                continue
            given = [structure.labels[name] for name in site.inputs]
            made = [structure.labels[name] for name in site.outputs]
            site.operator.complete(given, made, kept)
            if not isinstance(site.operator, Concat) and any(kept[labels].any() for labels in made):
                for name in site.inputs:
                    _keep_one(structure.labels[name], constants[name], kept)
        if int(kept.sum()) == before:
            return


def _keep_one(labels: Labels, constants: Constants, kept: BoolArray) -> None:
    """A tensor that is read holds something: a constant where there is one, which is cheap."""
    if not kept[labels].any():
        flat = labels.reshape(-1)
        kept[flat[int(np.argmin(np.isnan(constants.reshape(-1))))]] = True


PROBES = (-10.0, -1.0, 0.0, 1.0, 10.0)
"""Values at which an operator is tried where it is not known what an idle channel brings it."""


def _fragile(structure: Structure) -> BoolArray:
    """Atoms that may not hold an arbitrary zero: somebody divides by them, say.

    Nor may a layer put out a zero that becomes a number on the way which somebody divides by. What
    an idle channel holds is followed like a constant; where it cannot be, every probe has to pass.
    """
    fragile = np.zeros(structure.count, dtype=bool)
    idle: dict[str, Constants] = {}
    for site in structure.sites:
        if is_layer(site.operator):
            idle[site.outputs[0]] = np.zeros(structure.labels[site.outputs[0]].shape)
            continue
        brought = {name: idle.get(name, unknown(structure.labels[name])) for name in site.inputs}
        idle.update(_through(site, structure, brought))
        if not isinstance(site.operator, Unary | WithConstant | Join):
            continue
        labels = structure.labels[site.outputs[0]]
        for probe in PROBES:
            held = [brought[name] for name in site.inputs]
            given = [np.where(np.isnan(values), probe, values) for values in held]
            bad = ~np.isfinite(site.operator.at_positions(given))
            fragile[labels[anywhere(bad, labels.shape)]] = True
    return fragile


def is_layer(operator: Operator | None) -> bool:
    """Whether a channel begins at this operator's output: it has a weight of its own."""
    return isinstance(operator, Mixing | Depthwise)
