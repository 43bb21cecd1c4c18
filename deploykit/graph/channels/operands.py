"""Constant operands of an operator: how they combine with constants, and how they are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.rule import Arrangement, Constants, coordinates
from deploykit.graph.edit import floats
from deploykit.graph.passes.affine import Affine
from deploykit.spec.arrays import AnyArray, BoolArray, Float64Array


def aligned(operand: Float64Array, rank: int) -> Float64Array:
    """The operand with leading axes of size 1, as broadcasting reads it."""
    return operand.reshape((1,) * (rank - operand.ndim) + operand.shape)


def reduced(values: Float64Array, shape: Sequence[int]) -> Constants:
    """Values over positions as one per label entry: NaN where they differ. shape: the labels'."""
    values = np.asarray(values, dtype=np.float64)
    for axis, size in enumerate(shape):
        if size == 1 and values.shape[axis] > 1:
            first = np.take(values, [0], axis=axis)
            same = (values == first).all(axis=axis, keepdims=True)
            values = np.where(same, first, np.nan)
    return np.array(np.broadcast_to(values, shape))


def at_positions(
    function: Callable[..., Float64Array], rank: int, *values: Float64Array
) -> Float64Array:
    """f over constants and operands, at every position that these tell apart."""
    with np.errstate(all="ignore"):
        return np.asarray(function(*(aligned(value, rank) for value in values)))


def combine(
    function: Callable[..., Float64Array], shape: Sequence[int], *values: Float64Array
) -> Constants:
    """f over constants and operands, as one number per label entry."""
    return reduced(at_positions(function, len(shape), *values), shape)


def anywhere(marks: BoolArray, shape: Sequence[int]) -> BoolArray:
    """Marks over positions as one per label entry. shape: the labels'."""
    axes = tuple(k for k, size in enumerate(shape) if size == 1)
    return np.array(np.broadcast_to(marks.any(axis=axes, keepdims=True), shape))


def cut_operand(affine: Affine, value: ir.Value, labels: Labels, arranged: Arrangement) -> None:
    """Keep of an initializer that broadcasts against a tensor what that tensor keeps."""
    name = str(value.name)
    array, spread = floats(affine.graph.initializers[name]), affine.spread(name)
    assert array is not None
    taken = take(array, labels, arranged)
    affine.store(name, taken, None if spread is None else take(spread, labels, arranged))


def take(array: Float64Array, labels: Labels, arranged: Arrangement) -> Float64Array:
    """The entries of a broadcasting array that an arrangement names; itself if none is cut."""
    wide = aligned(array, labels.ndim)
    varies = [axis for axis, size in enumerate(labels.shape) if size > 1 and wide.shape[axis] > 1]
    if not varies:
        return array
    index: list[AnyArray] = []
    for axis, where in enumerate(coordinates(arranged, labels)):
        if labels.shape[axis] > 1:
            index.append(where if wide.shape[axis] > 1 else np.zeros_like(where))
        else:
            along = [1] * labels.ndim
            along[axis] = -1
            index.append(np.arange(wide.shape[axis]).reshape(along))
    taken = wide[tuple(index)]
    spare = labels.ndim - array.ndim
    return taken.reshape(taken.shape[spare:]) if set(taken.shape[:spare]) <= {1} else taken
