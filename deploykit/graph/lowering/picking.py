"""What takes elements from constant places along its axes, as a Gather along each of them.

    Slice with a negative step              its places, backwards
    Tile                                    the whole axis, several times
    Pad of mode edge, reflect or wrap       the places that it repeats
    Resize to the nearest                   the nearest places; whole multiples of an image stay
    Gather by places counted from the end   counted from the front

The batch keeps its places. Exact, and both runtimes only move bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    attribute_string,
    bypass,
    constant,
)
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import IntArray
from deploykit.spec.nearest import COORDINATES, ROUNDINGS, nearest_places
from deploykit.spec.network import Network, static_shape

Places = Mapping[int, IntArray]
"""By axis, which places of the input stand there, one behind another."""

REPEATING = {
    "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
}  # fmt: skip
"""The Resize that repeats whole pixels."""


def lower_picks(network: Network) -> Rewritten:
    """Replace every node above, but one along the batch."""
    return replace_each(network, lambda node: _places(node) is not None, _replace)


def _places(node: ir.Node) -> Places | None:
    """Of a node of the table; None for any other."""
    if node.op_type not in PLACES:
        return None
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if source is None or result is None:
        return None
    found = PLACES[node.op_type](node, source, result)
    if found is None or 0 in found or (not found and _joins_ports(node)):
        return None
    return found


def _joins_ports(node: ir.Node) -> bool:
    """Whether a node that moves nothing connects an input to an output."""
    source = node.inputs[0]
    return source is not None and source.producer() is None and node.outputs[0].is_graph_output()


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    new, value, places = Replacement(graph, node), node.inputs[0], _places(node)
    shape = static_shape(value)
    assert value is not None and shape is not None and places is not None
    if not places:
        bypass(graph, node, value)
        return
    times = _repeats(shape, places)
    if times is not None:
        scales = new.constant("scales", np.array(times, np.float32))
        full = [size * time for size, time in zip(shape, times, strict=True)]
        new.finish(new.node("Resize", [value, None, scales], "pixels", full, REPEATING))
        return
    for axis, taken in places.items():
        shape = tuple(len(taken) if place == axis else size for place, size in enumerate(shape))
        held = new.constant(f"places{axis}", taken)
        value = new.node("Gather", [value, held], f"taken{axis}", shape, {"axis": axis})
    new.finish(value)


def _repeats(shape: tuple[int, ...], places: Places) -> tuple[int, ...] | None:
    """How often each pixel of an image is repeated; None where that is not all."""
    if len(shape) != 4 or not set(places) <= {2, 3}:
        return None
    times = [1, 1, 1, 1]
    for axis, taken in places.items():
        times[axis] = len(taken) // shape[axis]
        if not np.array_equal(taken, np.arange(times[axis] * shape[axis]) // max(times[axis], 1)):
            return None
    return tuple(times)


def _sliced(node: ir.Node, source: tuple[int, ...], _: tuple[int, ...]) -> Places | None:
    held = [constant(value) for value in node.inputs[1:]]
    starts, ends, axes, steps = [*held, None, None, None, None][:4]
    if starts is None or ends is None or steps is None or (steps > 0).all():
        return None
    along = np.arange(starts.size) if axes is None else axes
    found = {}
    for axis, start, end, step in zip(along, starts, ends, steps, strict=True):
        place = int(axis) % len(source)
        whole = np.arange(source[place])
        taken = whole[slice(int(start), int(end), int(step))]
        if not np.array_equal(taken, whole):
            found[place] = taken
    return found


def _tiled(node: ir.Node, source: tuple[int, ...], _: tuple[int, ...]) -> Places | None:
    repeats = constant(node.inputs[1])
    if repeats is None:
        return None
    counts = enumerate(zip(source, repeats.tolist(), strict=True))
    return {axis: np.tile(np.arange(size), count) for axis, (size, count) in counts if count != 1}


def _padded(node: ir.Node, source: tuple[int, ...], _: tuple[int, ...]) -> Places | None:
    widths = constant(node.inputs[1])
    plain = len(node.inputs) < 4 or node.inputs[3] is None
    if widths is None or not plain or widths.min() < 0:
        return None
    match attribute_string(node, "mode", "constant"):
        case "edge" | "reflect" | "wrap" as mode:
            pairs = widths.reshape(2, -1).T.tolist()
            return {
                axis: np.pad(np.arange(size), pair, mode=mode)
                for axis, (size, pair) in enumerate(zip(source, pairs, strict=True))
                if any(pair)
            }
        case _:
            return None


def _resized(node: ir.Node, source: tuple[int, ...], result: tuple[int, ...]) -> Places | None:
    kept = [attribute_string(node, name, value) for name, value in DEFAULTS.items()]
    mode, coordinates, rounding, policy = kept
    known = coordinates in COORDINATES and rounding in ROUNDINGS and policy == "stretch"
    given = dict(zip(("scales", "sizes"), node.inputs[2:4], strict=False))
    already = kept[:3] == list(REPEATING.values()) and given.get("sizes") is None
    if mode != "nearest" or not known:
        return None
    scales = constant(given.get("scales"))
    axes = attribute_ints(node, "axes", range(len(source)))
    stated: dict[int, float] = {}
    if scales is not None and scales.size:
        stated = {
            axis % len(source): float(scale) for axis, scale in zip(axes, scales, strict=True)
        }
    found = {}
    for axis, (length, size) in enumerate(zip(source, result, strict=True)):
        scale = stated.get(axis, size / length)
        taken = nearest_places(coordinates, rounding, scale, length, size)
        if not np.array_equal(taken, np.arange(length)):
            found[axis] = taken
    return None if already and _repeats(source, found) is not None else found


DEFAULTS = {
    "mode": "nearest", "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor", "keep_aspect_ratio_policy": "stretch",
}  # fmt: skip
"""Of a Resize."""


def _gathered(node: ir.Node, source: tuple[int, ...], _: tuple[int, ...]) -> Places | None:
    indices, axis = constant(node.inputs[1]), attribute_int(node, "axis", 0) % len(source)
    if indices is None or indices.ndim != 1 or indices.min(initial=0) >= 0:
        return None
    return {axis: np.where(indices < 0, indices + source[axis], indices).astype(np.int64)}


PLACES: Mapping[str, Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], Places | None]] = {
    "Gather": _gathered,
    "Pad": _padded,
    "Resize": _resized,
    "Slice": _sliced,
    "Tile": _tiled,
}
