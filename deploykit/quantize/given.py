"""What planning makes of the grids that a network was trained on.

A grid is kept where integers and runtimes allow it: weights whose values lie on it, tensors whose
scale nothing else decides. The others are planned as if there were none, and the plan says why.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from deploykit.quantize.hidden import Coarser
from deploykit.quantize.nodes import parameter
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.sharing import Group, fixed_quantization
from deploykit.quantize.structure import Layer
from deploykit.quantize.tied import Tied
from deploykit.quantize.weights import smallest_scales
from deploykit.spec.given import ActivationGrid, Given, GivenIntegers, integers_on
from deploykit.spec.plan import GridUse
from deploykit.spec.quantized import IoType, Quantization

OFF_GRID = "its values are no longer on the grid: something between the file and here scaled them"
FINE = "at that scale its biases or its output would leave what runtimes take"
INPUT = (
    "it shares its scale with an input of the network, and runtimes round a float input alike only "
    "at powers of two (--io uint8 or int8 takes any scale)"
)
INSISTED = "runtimes insist on a scale for what computes it"
JOINED = "it shares its scale with {}, which has another grid"
MOVED = "its scale moved by {:.2%}, so that runtimes take it and round alike"
COARSER = "its scale is kept, but its integers come from {}, in steps up to {:.3g} times as large"
GONE = "no layer of that name is left"
FOLDED = (
    "no such tensor is left: what made it was folded into another operator, which rounds once, "
    "or removed"
)
AT_THE_END = "it is computed in float, behind the last integers"
TAKEN_IN = "a layer takes it in, and rounds once where the network had two roundings"


POWER_OF_TWO = 0.5
"""The mantissa of a power of two, as math.frexp has it."""


def weight_name(layer: Layer) -> str:
    """Of the initializer that a layer multiplies with."""
    value = layer.nodes[0].inputs[1]
    return "" if value is None else str(value.name)


def trained_bits(layer: Layer, given: Given) -> int:
    """Of the grid of a layer's weights."""
    return given.weights[weight_name(layer)].bits


def given_integers(layers: Sequence[Layer], tied: Tied, given: Given) -> dict[str, GivenIntegers]:
    """By name of a layer, of those whose weights are on their grid; tied ones share it."""
    found: dict[str, GivenIntegers] = {}
    for layer in layers:
        if layer.kind not in WEIGHTED:
            continue
        grid = given.weights.get(weight_name(tied[layer.name][0]))
        held = None if grid is None else integers_on(parameter(layer.nodes[0], 1), grid)
        if held is not None:
            found[layer.name] = held
    return found


def group_grid(
    group: Group, layers: Sequence[Layer], sources: Collection[str], given: Given, io: IoType
) -> Quantization | None:
    """The quantization that a group's tensors were trained on; None where deploykit chooses."""
    stated = _stated(group, given)
    if not stated or _taken(group, layers, sources, stated, io) is not None:
        return None
    return next(iter(stated.values())).quantization


def fits_runtimes(
    held: GivenIntegers, tied: Sequence[Layer], chosen: Mapping[str, Quantization], bits: int
) -> bool:
    """Whether biases and multipliers stay within what runtimes take, at the given scale."""
    return all(
        bool(
            (
                held.scale
                >= smallest_scales(
                    parameter(one.nodes[0], 2), chosen[one.inputs[0]].scale,
                    chosen[one.output].scale, bits,
                )
            ).all()
        )
        for one in tied
    )  # fmt: skip


def weight_uses(
    layers: Sequence[Layer], kept: Mapping[str, bool], tied: Tied, given: Given
) -> Iterator[GridUse]:
    """kept: by name of a layer whose weights are on their grid, whether the scale is too."""
    for layer in layers:
        name = weight_name(tied[layer.name][0]) if layer.kind in WEIGHTED else ""
        grid = given.weights.get(name)
        if grid is None:
            continue
        held = kept.get(layer.name)
        why = OFF_GRID if held is None else "" if held else FINE
        yield GridUse("weight", layer.name, grid.bits, why)
    left = {weight_name(layer) for layer in layers if layer.kind in WEIGHTED}
    for name, grid in given.weights.items():
        if name not in left:
            yield GridUse("weight", name, grid.bits, GONE)
    named = {weight_name(layer): layer.name for layer in layers if layer.kind in WEIGHTED}
    for refused in given.refused:
        yield GridUse(
            refused.kind, named.get(refused.name, refused.name), refused.bits, refused.why
        )


def activation_uses(
    groups: Sequence[Group],
    layers: Sequence[Layer],
    sources: Collection[str],
    chosen: Mapping[str, Quantization],
    given: Given,
    io: IoType,
    ends: Collection[str] = (),
    coarser: Mapping[str, Coarser] = MappingProxyType({}),
) -> Iterator[GridUse]:
    """chosen: after scales settled. ends: tensors that are computed in float at the end.

    coarser: by tensor on a grid, what it is computed from in larger steps.
    """
    left = set(given.activations)
    for group in groups:
        stated = _stated(group, given)
        taken = _taken(group, layers, sources, stated, io)
        first = next(iter(stated.values()), None)
        for name, grid in stated.items():
            left.discard(name)
            why = taken or ""
            if not why and first is not None and grid.quantization != first.quantization:
                why = JOINED.format(next(iter(stated)))
            if not why and chosen[name] != grid.quantization:
                why = MOVED.format(chosen[name].scale / grid.quantization.scale - 1)
            if not why and name in coarser:
                why = COARSER.format(coarser[name].hidden, coarser[name].ratio)
            yield GridUse("activation", name, grid.bits, why)
    inside = {str(value.name) for layer in layers for one in layer.nodes for value in one.outputs}
    for name in sorted(left):
        why = TAKEN_IN if name in inside else AT_THE_END if name in ends else FOLDED
        yield GridUse("activation", name, given.activations[name].bits, why)


def _stated(group: Group, given: Given) -> dict[str, ActivationGrid]:
    return {name: given.activations[name] for name in group.tensors if name in given.activations}


def _taken(
    group: Group,
    layers: Sequence[Layer],
    sources: Collection[str],
    stated: Mapping[str, ActivationGrid],
    io: IoType,
) -> str | None:
    """Why a group's scale is not the stated one, None where it is."""
    if not stated:
        return None
    wanted = next(iter(stated.values())).quantization
    shared = any(name in sources for name in group.makers)
    if shared and io is IoType.FLOAT and math.frexp(wanted.scale)[0] != POWER_OF_TWO:
        return INPUT
    makers = [layer for layer in layers if layer.output in group.makers]
    insisted = {fixed_quantization(one) for one in makers} - {None}
    return INSISTED if insisted - {wanted} else None


def largest_sum(held: GivenIntegers | None, layer: Layer) -> float:
    """Of |products| that an output can add up, in steps of input and weight.

    Without given integers a weight's steps are 127 for its largest, and no output has more.
    """
    if held is not None:
        steps = np.abs(held.values.astype(np.float64)).reshape(len(held.values), -1).sum(axis=1)
        return float(255.0 * steps.max(initial=0.0))
    weight = parameter(layer.nodes[0], 1)
    largest = np.abs(weight).max(initial=0.0)
    rows = np.abs(weight).reshape(len(weight), -1).sum(axis=1)
    return float(255.0 * 127.0 * rows.max(initial=0.0) / largest) if largest > 0 else 0.0
