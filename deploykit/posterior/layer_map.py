"""Propose which layer of the network each layer of a checkpoint is, where their names differ.

Shapes decide, and where they are equal, the order of the layers in the file, as long as it can be
the network's: layers that have equal shapes and equal places in the flow of data (parallel heads,
the projections of an attention) may stand in any order. There names decide if they differ in the
same parts on both sides, else nothing does, and the candidates are all that is proposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from torch import nn

from deploykit.posterior.data_flow import DataFlow, data_flow
from deploykit.posterior.layer_shapes import (
    PlacedLayer,
    StoredLayer,
    owners,
    placed_layers,
    shown,
    stored_layers,
)
from deploykit.posterior.recognise import split_key
from deploykit.posterior.shards import is_index
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.posterior import Checkpoint


class DecidedBy(Enum):
    """Why a layer of the checkpoint is taken for one of the network's."""

    SHAPE = "shape"
    ORDER = "order"
    NAME = "name"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Match:
    """One layer of the checkpoint. candidates: of the network; several where nothing decides."""

    layer: StoredLayer
    candidates: tuple[str, ...]
    by: DecidedBy


def propose(checkpoint: Checkpoint, network: nn.Module, inputs: GraphInputs) -> tuple[Match, ...]:
    """A match for every layer of the checkpoint; none at all where shapes are not the network's.

    Raises CheckpointError where a layer on either side is not understood, ArchitectureError where
    the network does not run on the inputs.
    """
    stored = stored_layers(checkpoint)
    if unfitting(stored, placed_layers(network, {})):
        return ()
    flow = data_flow(network, inputs, owners(network))
    placed = placed_layers(network, flow.channels)
    if _keeps_order(checkpoint):
        matches = _in_order(stored, placed)
        if matches:
            return _with_parallels(matches, _parallel(placed, flow))
    return _by_shape(stored, placed)


def unfitting(stored: Iterable[StoredLayer], placed: Iterable[PlacedLayer]) -> str:
    """The first layer, by its shapes, that has no counterpart on the other side; "" for none."""
    left = list(placed)
    for layer in stored:
        fitting = [place for place in left if layer.fits(place)]
        if not fitting:
            return f"no layer of the network has the shapes of '{layer.name}' ({shown(layer.own)})"
        left.remove(min(fitting, key=lambda place: place.stands_for_gates))
    for place in left:
        if not place.stands_for_gates:
            return f"no layer of the file has the shapes of '{place.name}' ({shown(place.shapes)})"
    return ""


def _keeps_order(checkpoint: Checkpoint) -> bool:
    """Whether the file lists layers as the network does.

    Safetensors and indices of shards are sorted, and so is what was converted from them: there a
    layer's bias comes before its weight.
    """
    if checkpoint.path.suffix == ".safetensors" or is_index(checkpoint.path):
        return False
    keys = list(checkpoint.tensors)
    layers = {split_key(key)[0] for key in keys}
    return keys != sorted(keys) or len(layers) == len(keys)


def _in_order(stored: Sequence[StoredLayer], placed: Sequence[PlacedLayer]) -> tuple[Match, ...]:
    """Every place that a layer takes in some alignment which keeps the order of both sides.

    ahead[i][j]: whether the first i layers fit the first j places, of which only gates may stay
    without a layer; behind[i][j]: the same from layer i and place j on.
    """
    rows, columns = len(stored), len(placed)
    ahead = [[False] * (columns + 1) for _ in range(rows + 1)]
    behind = [[False] * (columns + 1) for _ in range(rows + 1)]
    fits = [[layer.fits(place) for place in placed] for layer in stored]
    ahead[0][0] = behind[rows][columns] = True
    for i in range(rows + 1):
        for j in range(columns):
            ahead[i][j + 1] = (ahead[i][j] and placed[j].stands_for_gates) or (
                i > 0 and ahead[i - 1][j] and fits[i - 1][j]
            )
    for i in reversed(range(rows + 1)):
        for j in reversed(range(columns)):
            behind[i][j] = (behind[i][j + 1] and placed[j].stands_for_gates) or (
                i < rows and behind[i + 1][j + 1] and fits[i][j]
            )
    if not ahead[rows][columns]:
        return ()
    return tuple(
        _match(
            layer,
            [
                placed[j].name
                for j in range(columns)
                if ahead[i][j] and fits[i][j] and behind[i + 1][j + 1]
            ],
            DecidedBy.SHAPE if sum(fits[i]) == 1 else DecidedBy.ORDER,
        )
        for i, layer in enumerate(stored)
    )


def _match(layer: StoredLayer, candidates: Sequence[str], by: DecidedBy) -> Match:
    return Match(layer, tuple(candidates), by if len(candidates) == 1 else DecidedBy.NOTHING)


def _by_shape(stored: Sequence[StoredLayer], placed: Sequence[PlacedLayer]) -> tuple[Match, ...]:
    """Groups that fit the same places, where there are as many of both."""
    if unfitting(stored, placed):
        return ()
    groups: dict[tuple[str, ...], list[StoredLayer]] = {}
    for layer in stored:
        fitting = tuple(place.name for place in placed if layer.fits(place))
        groups.setdefault(fitting, []).append(layer)
    found = {
        match.layer.name: match
        for candidates, layers in groups.items()
        for match in _told_apart(layers, candidates, DecidedBy.SHAPE)
    }
    return tuple(found[layer.name] for layer in stored)


def _with_parallels(
    matches: Sequence[Match], parallel: Iterable[tuple[str, ...]]
) -> tuple[Match, ...]:
    """The same, but for layers that stand in parallel with equal ones."""
    by_place = {match.candidates[0]: match for match in matches if len(match.candidates) == 1}
    changed: dict[str, Match] = {}
    for places in parallel:
        layers = [by_place[place].layer for place in places if place in by_place]
        if len(layers) == len(places):
            made = _told_apart(layers, places, DecidedBy.ORDER)
            changed |= {match.layer.name: match for match in made}
    return tuple(changed.get(match.layer.name, match) for match in matches)


def _told_apart(
    layers: Sequence[StoredLayer], candidates: tuple[str, ...], by: DecidedBy
) -> list[Match]:
    """By the parts in which the names of each side differ, where these are the same parts."""
    if len(layers) == len(candidates) == 1:
        return [Match(layers[0], candidates, by)]
    place_of = dict(zip(_differing(candidates), candidates, strict=True))
    parts = _differing([layer.name for layer in layers])
    if place_of.keys() == set(parts) and len(place_of) == len(candidates) == len(layers):
        named = zip(layers, parts, strict=True)
        return [Match(layer, (place_of[part],), DecidedBy.NAME) for layer, part in named]
    return [Match(layer, candidates, DecidedBy.NOTHING) for layer in layers]


def _differing(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Without the parts that all names have.

    _differing(["a.0.q.fc", "a.0.k.fc"]) -> [("q",), ("k",)]
    """
    split = [name.split(".") for name in names]
    common = set(split[0]).intersection(*split)
    return [tuple(part for part in parts if part not in common) for parts in split]


def _parallel(placed: Sequence[PlacedLayer], flow: DataFlow) -> Iterable[tuple[str, ...]]:
    """Layers that nothing but their names tells apart.

    Each has a colour: its shapes, then again and again its colour with those of all layers
    upstream and downstream of it, until no more colours come.
    """
    downstream = flow.downstream()
    colours: dict[str, int] = _numbered(
        {place.name: (sorted(place.shapes.items()), place.channels) for place in placed}
    )
    while True:
        refined = _numbered(
            {
                name: (
                    colour,
                    sorted(colours[above] for above in flow.upstream[name]),
                    sorted(colours[below] for below in downstream[name]),
                )
                for name, colour in colours.items()
            }
        )
        if len(set(refined.values())) == len(set(colours.values())):
            break
        colours = refined
    classes: dict[int, list[str]] = {}
    for name, colour in colours.items():
        classes.setdefault(colour, []).append(name)
    return [tuple(names) for names in classes.values() if len(names) > 1]


def _numbered(values: Mapping[str, object]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(repr(value), len(numbers)) for name, value in values.items()}
