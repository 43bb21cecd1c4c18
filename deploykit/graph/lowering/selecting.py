"""A choice by a constant condition, as masks of scores are, in arithmetic.

    where(m, x, k) = min(x, where(m, inf, k))      k minus infinity wherever m is not
    where(m, x, k) = x * m + where(m, 0, k)        any other constant k
    where(m, k, x) = where(not m, x, k)
    where(m, x, y) = x * m + y * (1 - m)
    where(m, x, y) = x                             m everywhere, and y where m is nowhere

Exact for finite x and y: one of the two terms is zero. A sum of zeros is left out.
Source: ONNX operator specification, Where.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import bypass, constant, floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import Network, static_shape


def lower_choices(network: Network) -> Rewritten:
    """Replace every Where of floats whose condition is a constant."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    if node.op_type != "Where" or static_shape(node.outputs[0]) is None:
        return False
    kind, computed = node.outputs[0].dtype, [constant(value) is None for value in node.inputs[1:]]
    floating = kind is not None and kind.is_floating_point()
    return floating and constant(node.inputs[0]) is not None and any(computed)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    held = constant(node.inputs[0])
    shape, (_, taken, other) = static_shape(node.outputs[0]), node.inputs
    assert held is not None and shape is not None and taken is not None and other is not None
    new, mask = Replacement(graph, node), held.astype(np.bool_)
    always = taken if mask.all() else other if not mask.any() else None
    if always is not None and always.producer() is not None and static_shape(always) == shape:
        bypass(graph, node, always)
    elif constant(taken) is None and constant(other) is None:
        left, right = _masked(new, taken, mask), _masked(new, other, ~mask)
        new.finish(new.node("Add", [left, right], "chosen", shape))
    elif constant(taken) is None:
        new.finish(_beside(new, taken, mask, floats(other), shape))
    else:
        new.finish(_beside(new, other, ~mask, floats(taken), shape))


def _beside(
    new: Replacement,
    value: ir.Value,
    mask: AnyArray,
    fill: Float64Array | None,
    shape: tuple[int, ...],
) -> ir.Value:
    """The value where the mask holds, and numbers elsewhere."""
    assert fill is not None
    filled = np.where(mask, 0.0, fill)
    if np.isneginf(fill).all():
        limits = new.constant("limits", np.where(mask, np.inf, fill))
        return new.node("Min", [value, limits], "chosen", shape)
    masked = _masked(new, value, mask)
    if not filled.any():
        return masked
    return new.node("Add", [masked, new.constant("filled", filled)], "chosen", shape)


def _masked(new: Replacement, value: ir.Value, mask: AnyArray) -> ir.Value:
    own = np.broadcast_shapes(static_shape(value) or (), mask.shape)
    factors = new.constant("mask", mask.astype(np.float64))
    return new.node("Mul", [value, factors], "masked", own)
