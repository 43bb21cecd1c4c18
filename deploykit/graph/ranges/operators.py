"""Operators that treat channels one by one: how they couple them, and the range they give.

An operator without a row here, or whose `couple` says None, is a border: what it reads and computes
has to stay, and what it computes is bounded by measurement alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    floats,
    padded,
)
from deploykit.graph.passes.batchnorm import batchnorm_as_affine, is_inference
from deploykit.graph.ranges.channels import Channels, PinnedAtoms
from deploykit.graph.ranges.curves import CURVES
from deploykit.graph.ranges.span import Span, hull, points, product

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """One node. inputs: channels of each input, None for a constant; shapes: of each input."""

    node: ir.Node
    inputs: tuple[Channels | None, ...]
    shapes: tuple[Shape, ...]
    output_shape: Shape

    @property
    def tensors(self) -> tuple[Channels, ...]:
        """Of the inputs that are not constant."""
        return tuple(channels for channels in self.inputs if channels is not None)


@dataclass(frozen=True)
class Operator:
    """couple: the output's channels, None for a border. span: their range, from every input's.

    `span` gets one entry per input of the node, None for a constant.
    """

    couple: Callable[[Place, PinnedAtoms], Channels | None]
    span: Callable[[Place, Sequence[Span | None], Channels], Span]


def _first(spans: Sequence[Span | None]) -> Span:
    span = spans[0]
    assert span is not None
    return span


def _same(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """The output's channels are the first input's, on the axis they were on."""
    del atoms
    source = place.inputs[0]
    if source is None or len(place.tensors) != 1:
        return None
    ranks_agree = len(place.output_shape) == len(place.shapes[0])
    return source if ranks_agree and place.output_shape[source.axis] == len(source) else None


def _curve(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    del output
    curve = CURVES[place.node.op_type](place.node)
    assert curve is not None
    return curve.over(_first(spans))


def _couple_curve(place: Place, atoms: PinnedAtoms) -> Channels | None:
    return None if CURVES[place.node.op_type](place.node) is None else _same(place, atoms)


def _couple_binary(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """Channel c of one operand with channel c of the other; a constant operand couples nothing.

    An operand with a single channel reaches all of them, and has to stay.
    """
    operands = [
        _aligned(channels, shape, place.output_shape)
        for channels, shape in zip(place.inputs, place.shapes, strict=True)
        if channels is not None
    ]
    if place.node.op_type == "Div" and place.inputs[1] is not None:
        return None
    axis = operands[0].axis
    count = place.output_shape[axis]
    if any(operand.axis != axis for operand in operands):
        return None
    wide = [operand for operand in operands if len(operand) == count]
    if not wide:
        return None
    for operand in operands:
        if len(operand) != count:
            atoms.pin(operand.atoms)
        elif operand is not wide[0]:
            atoms.join(operand.atoms, wide[0].atoms)
    return wide[0]


def _aligned(channels: Channels, shape: Shape, output_shape: Shape) -> Channels:
    """The channels on the axis of the output that broadcasting lays them along."""
    return Channels(channels.axis + len(output_shape) - len(shape), channels.atoms)


def _binary(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    kinds = next(span.error.shape[1] for span in spans if span is not None)
    left, right = (
        _broadcast(_operand(place, index, output, kinds) if span is None else span, len(output))
        for index, span in enumerate(spans)
    )
    match place.node.op_type:
        case "Add":
            return Span(left.low + right.low, left.high + right.high, left.error + right.error)
        case "Sub":
            return Span(left.low - right.high, left.high - right.low, left.error + right.error)
        case "Mul":
            return product(left, right)
        case _:
            with np.errstate(divide="ignore"):
                inverse = hull([points(1 / right.low, kinds), points(1 / right.high, kinds)])
            crosses = (right.low <= 0) & (right.high >= 0)
            inverse = Span(
                np.where(crosses, -np.inf, inverse.low),
                np.where(crosses, np.inf, inverse.high),
                inverse.error,
            )
            return product(left, inverse)


def _broadcast(span: Span, count: int) -> Span:
    return span if len(span.low) == count else span.at(np.zeros(count, dtype=np.intp))


def _operand(place: Place, index: int, output: Channels, kinds: int) -> Span:
    """Smallest and largest of a constant operand along the channel axis."""
    value = floats(place.node.inputs[index])
    assert value is not None
    rank = len(place.output_shape)
    wide = value.reshape((1,) * (rank - value.ndim) + value.shape)
    others = tuple(axis for axis in range(rank) if axis != output.axis)
    return hull([points(wide.min(axis=others), kinds), points(wide.max(axis=others), kinds)])


def _couple_concat(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """Behind each other along the channel axis, or coupled where another axis grows."""
    if len(place.tensors) != len(place.inputs):
        return None
    first = place.tensors[0]
    if any(channels.axis != first.axis for channels in place.tensors):
        return None
    if _axis(place) == first.axis:
        joined = np.concatenate([channels.atoms for channels in place.tensors])
        return Channels(first.axis, joined)
    for channels in place.tensors[1:]:
        atoms.join(channels.atoms, first.atoms)
    return first


def _concat(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    parts = [span for span in spans if span is not None]
    if _axis(place) != output.axis:
        return hull(parts)
    return Span(
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.error for part in parts]),
    )


def _axis(place: Place) -> int:
    axis = attribute_int(place.node, "axis", 0)
    return axis + len(place.output_shape) if axis < 0 else axis


def _couple_view(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """Flatten, Reshape, Squeeze, Unsqueeze: [.., C, k, ..] to [.., C * k, ..] or [.., C, ..]."""
    del atoms
    source, before, after = place.inputs[0], place.shapes[0], place.output_shape
    if source is None or len(place.tensors) != 1:
        return None
    ahead = int(np.prod(before[: source.axis]))
    behind = np.cumprod([1, *before[source.axis + 1 :]]).tolist()
    for axis, size in enumerate(after):
        taken, rest = divmod(size, len(source))
        if int(np.prod(after[:axis])) == ahead and rest == 0 and taken in behind:
            return Channels(axis, np.repeat(source.atoms, taken))
    return None


def _view(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    source = place.inputs[0]
    assert source is not None
    return _first(spans).at(np.repeat(np.arange(len(source)), len(output) // len(source)))


def _couple_transpose(place: Place, atoms: PinnedAtoms) -> Channels | None:
    del atoms
    source = place.inputs[0]
    if source is None:
        return None
    order = attribute_ints(place.node, "perm", tuple(reversed(range(len(place.output_shape)))))
    return Channels(order.index(source.axis), source.atoms)


def _unchanged(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    del place, output
    return _first(spans)


def _couple_reduce(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """A mean or maximum over other axes than that of the channels."""
    del atoms
    source, rank = place.inputs[0], len(place.shapes[0])
    if source is None or len(place.tensors) != 1:
        return None
    held = constant(place.node.inputs[1]) if len(place.node.inputs) > 1 else None
    written = attribute_ints(place.node, "axes", ()) if held is None else held.reshape(-1).tolist()
    axes = {axis % rank for axis in written}
    if not axes or source.axis in axes:
        return None
    if attribute_int(place.node, "keepdims", 1):
        return source
    return Channels(source.axis - sum(axis < source.axis for axis in axes), source.atoms)


def _average(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    """A mean; positions beyond the border count as zeros where asked."""
    del output
    counted = attribute_int(place.node, "count_include_pad", 0) == 1
    outside = padded(place.node) or attribute_int(place.node, "ceil_mode", 0) == 1
    return _first(spans).including(0.0) if counted and outside else _first(spans)


def _pad_value(place: Place) -> float:
    held = floats(place.node.inputs[2]) if len(place.node.inputs) > 2 else None
    return 0.0 if held is None else float(held.reshape(()))


def _couple_pad(place: Place, atoms: PinnedAtoms) -> Channels | None:
    inputs = place.node.inputs
    known = all(value is None or constant(value) is not None for value in inputs[1:])
    return _same(place, atoms) if known else None


def _pad(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    del output
    if attribute_string(place.node, "mode", "constant") != "constant":
        return _first(spans)
    return _first(spans).including(_pad_value(place))


def _couple_resize(place: Place, atoms: PinnedAtoms) -> Channels | None:
    """Nearest and linear give values between their neighbours; cubic overshoots."""
    between = attribute_string(place.node, "mode", "nearest") in {"nearest", "linear"}
    outside = attribute_string(place.node, "coordinate_transformation_mode", "half_pixel")
    return _same(place, atoms) if between and outside != "tf_crop_and_resize" else None


def _couple_batchnorm(place: Place, atoms: PinnedAtoms) -> Channels | None:
    source = place.inputs[0]
    fits = source is not None and source.axis == 1 and is_inference(place.node)
    return _same(place, atoms) if fits else None


def _batchnorm(place: Place, spans: Sequence[Span | None], output: Channels) -> Span:
    del output
    scale, offset = batchnorm_as_affine(place.node)
    span = _first(spans)
    scaled = product(span, points(scale, span.error.shape[1]))
    return Span(scaled.low + offset, scaled.high + offset, scaled.error)


def _couple_max_pool(place: Place, atoms: PinnedAtoms) -> Channels | None:
    return _same(place, atoms) if len(place.node.outputs) == 1 else None


_VIEW = Operator(_couple_view, _view)
_BINARY = Operator(_couple_binary, _binary)
_REDUCE = Operator(_couple_reduce, _unchanged)
_POOLED = Operator(_same, _unchanged)

OPERATORS: Mapping[str, Operator] = {
    **{name: Operator(_couple_curve, _curve) for name in CURVES},
    "Add": _BINARY,
    "AveragePool": Operator(_same, _average),
    "BatchNormalization": Operator(_couple_batchnorm, _batchnorm),
    "Concat": Operator(_couple_concat, _concat),
    "Div": _BINARY,
    "Flatten": _VIEW,
    "GlobalAveragePool": _POOLED,
    "GlobalMaxPool": _POOLED,
    "MaxPool": Operator(_couple_max_pool, _unchanged),
    "Mul": _BINARY,
    "Pad": Operator(_couple_pad, _pad),
    "ReduceMax": _REDUCE,
    "ReduceMean": _REDUCE,
    "Reshape": _VIEW,
    "Resize": Operator(_couple_resize, _unchanged),
    "Squeeze": _VIEW,
    "Sub": _BINARY,
    "Transpose": Operator(_couple_transpose, _unchanged),
    "Unsqueeze": _VIEW,
}
