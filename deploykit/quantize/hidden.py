"""Tensors without a grid between a layer and a given grid: what they have to hold for it.

    y = c + 0, y on a grid                   c reaches as far as y's grid does
    y = f * m, f > 0 a constant              m reaches as far as y's grid over the smallest f

The network that states the grid computes such a tensor in float. In integers it has a scale of its
own: one that saturates before the grid does, or moves in larger steps, shows in what lies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.quantize.nodes import constant
from deploykit.quantize.operators import SHARING, Kind
from deploykit.quantize.sharing import Group
from deploykit.quantize.structure import Layer
from deploykit.spec.given import ActivationGrid
from deploykit.spec.quantized import Quantization

AS_FINE = 1.001
"""Ratio of steps up to which one tensor is as fine as another: scales settle by less."""


@dataclass(frozen=True)
class Coarser:
    """hidden: the tensor that a given grid is computed from. ratio: of its steps to the grid's."""

    hidden: str
    ratio: float


def needed_ranges(
    layers: Sequence[Layer], groups: Iterable[Group], grids: Mapping[str, ActivationGrid]
) -> Mapping[str, tuple[float, float]]:
    """(low, high) by tensor without a grid, as far as grids behind it ask for one.

    grids: those that are kept, by tensor.
    """
    held = {name: group.tensors for group in groups for name in group.tensors}
    found: dict[str, tuple[float, float]] = {}
    for name, grid in grids.items():
        _widen(found, held[name], grid.ends)
    for layer in reversed(layers):
        factors, target = _factors(layer), found.get(layer.output)
        if factors is None or target is None:
            continue
        (source,) = layer.inputs
        if not grids.keys() & set(held[source]):
            low, high = target
            _widen(found, held[source], (low / factors[0], high / factors[0]))
    on_grid = {one for name in grids for one in held[name]}
    return {name: ends for name, ends in found.items() if name not in on_grid}


def coarser_sources(
    layers: Sequence[Layer], hidden: Iterable[str], chosen: Mapping[str, Quantization]
) -> Mapping[str, Coarser]:
    """By tensor that is computed from a hidden one in larger steps than its own."""
    left, found = set(hidden), dict[str, Coarser]()
    for layer in layers:
        if layer.kind in SHARING:
            found.update((layer.output, found[name]) for name in layer.inputs[:1] if name in found)
        factors = _factors(layer)
        if factors is None or layer.inputs[0] not in left:
            continue
        source = layer.inputs[0]
        ratio = chosen[source].scale * factors[1] / chosen[layer.output].scale
        if ratio > AS_FINE:
            found[layer.output] = Coarser(source, ratio)
    return found


def _widen(
    found: dict[str, tuple[float, float]], names: Iterable[str], ends: tuple[float, float]
) -> None:
    for name in names:
        low, high = found.get(name, ends)
        found[name] = min(low, ends[0]), max(high, ends[1])


def _factors(layer: Layer) -> tuple[float, float] | None:
    """(smallest, largest) of a layer that multiplies one tensor with constants over zero."""
    if len(layer.inputs) != 1 or layer.kind not in {Kind.ADD, Kind.MUL}:
        return None
    read = [array for place in (0, 1) if (array := constant(layer.nodes[0], place)) is not None]
    if len(read) != 1:
        return None
    (array,) = read
    if layer.kind is Kind.ADD:
        return None if array.any() else (1.0, 1.0)
    positive = bool(np.isfinite(array).all() and (array > 0).all())
    return (float(array.min()), float(array.max())) if positive else None
