"""More samples than a graph's static batch, evaluated at once.

A tensor either varies with the samples, and holds them along axis 0 where the static graph holds
its batch, or is the same as in the static graph. Each operator's row keeps that true: it gives the
inputs as the operator must see them for that many samples, or raises MixesSamplesError. An
operator without a row may mix samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from deploykit.reference import float_reduce as reduce
from deploykit.reference import float_shapes as shapes
from deploykit.reference.float_node import (
    FloatNode,
    Inputs,
    axis_of,
    given,
    integer_list,
    optional,
)
from deploykit.reference.float_resize import leaves_rounding_open
from deploykit.reference.float_table import ELEMENTWISE, IMAGES, REDUCTIONS
from deploykit.spec.arrays import AnyArray
from deploykit.spec.batching import Batching

STATIC = frozenset({"Shape", "Size"})
"""Operators whose outputs are those of the static graph whatever the samples hold."""


class MixesSamplesError(Exception):
    """An operator treats the batch axis like any other, so a larger batch must go in parts."""


Varying = Sequence[bool]
"""By input whether it varies with the samples."""

Adaption = Callable[[FloatNode, Inputs, Varying, Batching], Inputs]


def for_samples(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """The inputs with which the operator computes for all samples what it does for a batch."""
    if not any(varying):
        return inputs
    adaption = ADAPTIONS.get(node.node.op_type)
    if adaption is None:
        raise MixesSamplesError
    return adaption(node, inputs, varying, batch)


def _keep(keeps: bool) -> None:
    if not keeps:
        raise MixesSamplesError


def _first_alone(varying: Varying) -> None:
    """Gives up where anything but the first input varies."""
    _keep(varying[0] and not any(varying[1:]))


def _broadcast(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """All varying inputs have the same rank, and a constant does not reach their axis 0."""
    del node, batch
    ranks = {x.ndim for x, varies in zip(inputs, varying, strict=True) if varies and x is not None}
    _keep(len(ranks) == 1)
    (rank,) = ranks
    for values, varies in zip(inputs, varying, strict=True):
        if values is not None and not varies:
            _keep(values.ndim < rank or (values.ndim == rank and values.shape[0] == 1))
    return inputs


def _images(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """Only the images vary."""
    del node, batch
    _first_alone(varying)
    return inputs


def _along(axes: Callable[[FloatNode, Inputs], tuple[int, ...]]) -> Adaption:
    """Works along axes (counted from the front) that leave the samples alone."""

    def adaption(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
        del batch
        _first_alone(varying)
        _keep(0 not in axes(node, inputs))
        return inputs

    return adaption


def _axis(default: int) -> Callable[[FloatNode, Inputs], tuple[int, ...]]:
    """The axis that an attribute names."""
    return lambda node, inputs: (axis_of(given(node, inputs, 0), node.integer("axis", default)),)


def _listed(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    """Axes of a Squeeze; without any, the batch may be among them."""
    axes = integer_list(node, inputs, 1, "axes") or (0,)
    return tuple(axis_of(given(node, inputs, 0), axis) for axis in axes)


def _added(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    """Axes of an Unsqueeze, counted in the result."""
    axes = integer_list(node, inputs, 1, "axes") or ()
    return tuple(axis % (given(node, inputs, 0).ndim + len(axes)) for axis in axes)


def _moved(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    perm = node.integers("perm", range(given(node, inputs, 0).ndim)[::-1]) or (0,)
    return tuple(axis for axis, source in enumerate(perm) if axis != source)


def _cut(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    return tuple(
        axis
        for axis, cut in shapes.slice_bounds(node, inputs)
        if cut != slice(0, cut.stop, 1) or cut.stop < np.iinfo(np.int32).max
    )


def _padded(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    return tuple(axis for axis, both in enumerate(shapes.pad_widths(node, inputs)) if any(both))


def _matrices(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    """The last two axes."""
    rank = given(node, inputs, 0).ndim
    return rank - 2, rank - 1


def _repeated(node: FloatNode, inputs: Inputs) -> tuple[int, ...]:
    return tuple(axis for axis, times in enumerate(given(node, inputs, 1)) if times != 1)


def _flatten(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    del varying, batch
    _keep(axis_of(given(node, inputs, 0), node.integer("axis", 1)) == 1)
    return inputs


def _reshape(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """A target whose first axis is the batch takes the samples there."""
    _first_alone(varying)
    values = given(node, inputs, 0)
    static = (batch.size, *values.shape[1:])
    target = list(integer_list(node, inputs, 1, "shape") or ())
    if node.integer("allowzero", 0) == 0:
        _keep(len(target) <= len(static) or 0 not in target[len(static) :])
        target = [static[i] if length == 0 else length for i, length in enumerate(target)]
    if -1 in target:
        known = prod(length for length in target if length != -1)
        target[target.index(-1)] = prod(static) // max(known, 1)
    _keep(bool(target) and target[0] == batch.size)
    return [values, np.array([batch.samples, *target[1:]], dtype=np.int64)]


def _expand(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    _first_alone(varying)
    values, target = given(node, inputs, 0), given(node, inputs, 1).copy()
    _keep(len(target) <= values.ndim)
    if len(target) == values.ndim:
        _keep(int(target[0]) in (1, batch.size))
        target[0] = 1
    return [values, target]


def _concat(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """A constant of a batch of one is repeated for every sample."""
    parts = [given(node, inputs, index) for index in range(len(inputs))]
    _keep(axis_of(parts[0], node.integer("axis", 0)) > 0)
    joined: list[AnyArray] = []
    for part, varies in zip(parts, varying, strict=True):
        if not varies:
            _keep(part.shape[0] == 1)
            part = np.broadcast_to(part, (batch.samples, *part.shape[1:]))
        joined.append(part)
    return joined


def _matmul(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """Samples as rows of the left factor, or as stacked matrices."""
    left, right = given(node, inputs, 0), given(node, inputs, 1)
    if left.ndim == 2 and right.ndim <= 2 and varying[0] and not varying[1]:
        return inputs
    stacked = max(left.ndim, right.ndim) > 2
    _keep(stacked and all(x.ndim > 2 for x, v in zip((left, right), varying, strict=True) if v))
    return _broadcast(node, inputs, varying, batch)


def _gemm(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """Samples as rows of the left factor."""
    _keep(varying[0] and not varying[1] and node.integer("transA", 0) == 0)
    addend = optional(inputs, 2)
    if addend is not None:
        _broadcast(node, [inputs[0], addend], [True, varying[2]], batch)
    return inputs


def _einsum(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """One letter leads every varying operand and the result, and occurs nowhere else."""
    del batch
    equation = node.text("equation", "").replace(" ", "")
    _keep("->" in equation and "." not in equation)
    operands, result = equation.split("->")
    letter = result[:1]
    for labels, varies in zip(operands.split(","), varying, strict=True):
        _keep(bool(letter) and labels.count(letter) == (1 if varies else 0))
        _keep(not varies or labels[0] == letter)
    return inputs


def _gather(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """Constant indices along another axis, or varying indices into a constant's axis 0."""
    del batch
    axis = axis_of(given(node, inputs, 0), node.integer("axis", 0))
    _keep(varying[0] != varying[1])
    _keep(axis > 0 if varying[0] else axis == 0 and given(node, inputs, 1).ndim > 0)
    return inputs


def _gather_elements(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    del batch
    axis = axis_of(given(node, inputs, 0), node.integer("axis", 0))
    _keep(all(varying) and axis > 0)
    return inputs


def _scaled(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """A Resize that leaves the batch as it is; sizes name it."""
    _first_alone(varying)
    rank = given(node, inputs, 0).ndim
    old = leaves_rounding_open(node)
    scales, sizes = optional(inputs, 1 if old else 2), None if old else optional(inputs, 3)
    axes = [axis % rank for axis in node.integers("axes", range(rank)) or ()]
    if 0 not in axes:
        return inputs
    place = axes.index(0)
    if scales is not None and scales.size:
        _keep(float(scales[place]) == 1.0)
        return inputs
    _keep(sizes is not None and node.text("keep_aspect_ratio_policy", "stretch") == "stretch")
    followed = np.array(sizes)
    _keep(int(followed[place]) == batch.size)
    followed[place] = batch.samples
    return [*inputs[:3], followed]


def _layers(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """A normalization over the axes behind the batch, its gain and offset constant."""
    _first_alone(varying)
    _keep(axis_of(given(node, inputs, 0), node.integer("axis", -1)) > 0)
    return _broadcast(node, inputs, varying, batch)


def _attention(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """Queries, keys and values vary together; a mask is the same for every sample."""
    del node, batch
    _keep(all(varying[:3]) and not any(varying[3:]) and len(inputs) <= 4)
    mask = optional(inputs, 3)
    _keep(mask is None or mask.ndim < 4 or mask.shape[0] == 1)
    return inputs


def _static_shape(node: FloatNode, inputs: Inputs, varying: Varying, batch: Batching) -> Inputs:
    """A stand-in of the shape that the static graph sees."""
    del varying
    values = given(node, inputs, 0)
    return [np.broadcast_to(np.zeros((), values.dtype), (batch.size, *values.shape[1:]))]


ADAPTIONS: Mapping[str, Adaption] = {
    **dict.fromkeys(ELEMENTWISE, _broadcast),
    **dict.fromkeys(IMAGES, _images),
    **dict.fromkeys(REDUCTIONS, _along(reduce.axes_of)),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax"),
        _along(lambda node, inputs: reduce.softmax_axes(node, given(node, inputs, 0))),
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", "Split"), _along(_axis(0))),
    **dict.fromkeys(("LpNormalization", "TopK"), _along(_axis(-1))),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layers),
    **dict.fromkeys(("Resize", "Upsample"), _scaled),
    **dict.fromkeys(STATIC, _static_shape),
    "Attention": _attention,
    "Concat": _concat,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _along(_padded),
    "Reshape": _reshape,
    "Slice": _along(_cut),
    "Squeeze": _along(_listed),
    "Tile": _along(_repeated),
    "Transpose": _along(_moved),
    "Trilu": _along(_matrices),
    "Unsqueeze": _along(_added),
}
