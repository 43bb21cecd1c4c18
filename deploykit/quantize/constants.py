"""Constants that a sum, a product or a comparison reads, as integers."""

from __future__ import annotations

import numpy as np

from deploykit.quantize.nodes import bound_of, constant
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import Float64Array
from deploykit.spec.plan import ConstantPlan
from deploykit.spec.quantized import Quantization, int_range

EXACT = 1e-5
"""Steps: float32 numbers that are whole multiples of a scale lie closer to them."""


def constant_operand(layer: Layer, scale_of_zero: float) -> ConstantPlan | None:
    """The constant of an Add or Mul, None where both operands are activations.

    Symmetric: scale = max |c| / n, so that a single number is exact to float32, with n = 127, or a
    smaller one to 64 where that makes every number exact. Zeros alone take `scale_of_zero`.
    """
    node = layer.nodes[0]
    for side in (0, 1):
        array = constant(node, side)
        if array is None:
            continue
        rank = len(node.outputs[0].shape or ())
        wide = array.astype(np.float64).reshape((1,) * (rank - array.ndim) + array.shape)
        _, highest = int_range(8)
        largest = float(np.abs(wide).max(initial=0.0))
        scale = np.float32(_scale(wide, largest) if largest > 0.0 else scale_of_zero)
        values = np.clip(np.rint(wide / np.float64(scale)), -highest, highest).astype(np.int8)
        value = node.inputs[side]
        assert value is not None
        return ConstantPlan(str(value.name), side, Quantization(float(scale), 0), values)
    return None


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
