"""Constants that a sum, a product or a comparison reads, as integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from deploykit.quantize.nodes import bound_of, constant
from deploykit.quantize.operators import Kind
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import Float64Array, Int8Array
from deploykit.spec.plan import ConstantPlan
from deploykit.spec.quantized import Quantization, int_range

NOTHING = 127 * float(np.finfo(np.float32).tiny)
"""A constant up to it has no scale that is a normal float32."""

EXACT = 1e-5
"""Steps: float32 numbers that are whole multiples of a scale lie closer to them."""


def constant_operand(
    layer: Layer,
    sources: Sequence[Quantization],
    into: Quantization,
    given: Mapping[str, Quantization] = MappingProxyType({}),
) -> ConstantPlan | None:
    """The constant of an Add or Mul, None where both operands are activations.

    On the grid that the network came with, where its numbers still are. Else symmetric: scale =
    max |c| / n, so that a single number is exact to float32, with n = 127, or a smaller one to 64
    where that makes every number exact. Zeros alone, and what is hardly more, take the output's
    scale. What holds a sum at an end of its range, whatever else is added, is as large as that
    takes: a term of -1000 before a Relu would leave the others no steps.

    sources, into: of what the layer reads and gives. given: by initializer name.
    """
    node = layer.nodes[0]
    for side in (0, 1):
        array = constant(node, side)
        if array is None:
            continue
        rank = len(node.outputs[0].shape or ())
        wide = array.astype(np.float64).reshape((1,) * (rank - array.ndim) + array.shape)
        _, highest = int_range(8)
        value = node.inputs[side]
        assert value is not None
        on_grid = given.get(str(value.name))
        if on_grid is not None:
            kept = on_grid.quantize(wide.astype(np.float32))
            if np.array_equal(on_grid.dequantize(kept), wide.astype(np.float32)):
                return ConstantPlan(str(value.name), side, on_grid, kept)
        if layer.kind is Kind.ADD and len(value.uses()) == 1:
            wide = _no_larger_than_it_takes(wide, sources[0], into)
        largest = float(np.abs(wide).max(initial=0.0))
        scale = np.float32(_scale(wide, largest) if largest > NOTHING else into.scale)
        values = np.clip(np.rint(wide / np.float64(scale)), -highest, highest).astype(np.int8)
        return ConstantPlan(str(value.name), side, Quantization(float(scale), 0), values)
    return None


def held_end(terms: Float64Array, source: Quantization, into: Quantization) -> Int8Array:
    """-1 or 1 where a term holds a sum at the low or high end of its range, for any integer of the
    other operand; else 0.
    """
    (least, most), (low, high) = source.ends, into.ends
    below, above = terms + most <= low, terms + least >= high
    return np.asarray(above.astype(np.int8) - below.astype(np.int8))


def _no_larger_than_it_takes(
    terms: Float64Array, source: Quantization, into: Quantization
) -> Float64Array:
    """Terms that hold a sum at an end, moved towards it: the same integers.

    Both ranges once more are left between, as scales may grow and terms are rounded.
    """
    (least, most), (low, high) = source.ends, into.ends
    spare = (most - least) + (high - low)
    return np.clip(terms, low - most - spare, high - least + spare)


def bound_operand(layer: Layer, into: Quantization) -> ConstantPlan | None:
    """The constant of a Maximum or Minimum in its output's quantization; None of two activations.

    What lies beyond the range is its end, which is as large (small) as any integer can be.
    """
    bound, node = bound_of(layer.nodes[0]), layer.nodes[0]
    if bound is None:
        return None
    side = 0 if constant(node, 0) is not None else 1
    rank, value = len(node.outputs[0].shape or ()), node.inputs[side]
    assert value is not None
    wide = bound.reshape((1,) * (rank - bound.ndim) + bound.shape)
    return ConstantPlan(str(value.name), side, into, into.quantize(wide.astype(np.float32)))


def _scale(values: Float64Array, largest: float) -> float:
    _, highest = int_range(8)
    for steps in range(highest, highest // 2, -1):
        inexact = values * (steps / largest)
        if np.abs(inexact - np.rint(inexact)).max() < EXACT:
            return largest / steps
    return largest / highest
