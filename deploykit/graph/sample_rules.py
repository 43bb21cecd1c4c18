"""Where each operator puts the samples of a batch, one row per operator; None where they meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from deploykit.graph.sample_place import SamplePlace, Shape, after_reshape
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Read:
    """One input of a node. place: None where it is the same for every sample."""

    shape: Shape
    place: SamplePlace | None


Given = Sequence[Read | None]
Rule = Callable[[ir.Node, Given, int], SamplePlace | None]
"""By node, inputs and batch, the place in the outputs. Some input has a place."""

ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
IMAGES = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "MaxPool",
    "Resize", "SpaceToDepth", "Upsample",
)  # fmt: skip
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def _first(given: Given) -> Read:
    first = given[0]
    assert first is not None
    return first


def _output(node: ir.Node) -> Shape:
    return static_shape(node.outputs[0]) or ()


def _elementwise(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """All operands hold the samples at one place, and a constant is the same along it."""
    del batch
    rank = len(_output(node))
    moved = {
        SamplePlace(one.place.axis + rank - len(one.shape), one.place.outer, one.place.inner)
        for one in given
        if one is not None and one.place is not None
    }
    if len(moved) != 1:
        return None
    (place,) = moved
    for one in given:
        axis = place.axis - rank + (0 if one is None else len(one.shape))
        if one is not None and one.place is None and axis >= 0 and one.shape[axis] != 1:
            return None
    return place


def _images(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    del batch
    place = _first(given).place
    same = _first(given).shape[:1] == _output(node)[:1]
    return place if place is not None and place.axis == 0 and same else None


def _view(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    first = _first(given)
    assert first.place is not None
    return after_reshape(first.place, first.shape, _output(node), batch)


def _unsqueeze(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """No choice of a reshape: every axis stays what it is."""
    first, output = _first(given), _output(node)
    axes = _listed(node, output, 1)
    if axes is None or first.place is None:
        return _view(node, given, batch)
    kept = [axis for axis in range(len(output)) if axis not in axes]
    return SamplePlace(kept[first.place.axis], first.place.outer, first.place.inner)


def _squeeze(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """The same, unless the axis of a batch of one goes: it is in front of another one then."""
    first = _first(given)
    axes = _listed(node, first.shape, 1)
    if axes == []:
        axes = [axis for axis, length in enumerate(first.shape) if length == 1]
    if axes is None or first.place is None or first.place.axis in axes:
        return _view(node, given, batch)
    gone = sum(axis < first.place.axis for axis in axes)
    return SamplePlace(first.place.axis - gone, first.place.outer, first.place.inner)


def _transpose(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    del batch
    first = _first(given)
    assert first.place is not None
    perm = list(node.attributes.get_ints("perm", tuple(range(len(first.shape))[::-1])))
    return SamplePlace(perm.index(first.place.axis), first.place.outer, first.place.inner)


def _beside(axes: Callable[[ir.Node, Shape], Sequence[int] | None]) -> Rule:
    """Works along axes that hold no samples, and keeps all axes."""

    def rule(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
        del batch
        places = {one.place for one in given if one is not None and one.place is not None}
        first = next(one for one in given if one is not None and one.place is not None)
        found = axes(node, first.shape)
        if len(places) != 1 or found is None or first.place is None:
            return None
        return None if first.place.axis in found else first.place

    return rule


def _attribute(default: int) -> Callable[[ir.Node, Shape], Sequence[int]]:
    return lambda node, shape: (node.attributes.get_int("axis", default) % len(shape),)


def _from_attribute(node: ir.Node, shape: Shape) -> Sequence[int]:
    """A layer norm's: from its axis on."""
    return range(node.attributes.get_int("axis", -1) % len(shape), len(shape))


def _listed(node: ir.Node, shape: Shape, place: int) -> list[int] | None:
    """Axes of an input or attribute; None where they are computed."""
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None:
        found = node.attributes.get_ints("axes", ())
        return [int(axis) % len(shape) for axis in found]
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        return None
    return [int(axis) % len(shape) for axis in tensor.numpy().reshape(-1)]


def _numbers(node: ir.Node, place: int) -> list[int] | None:
    """A whole-number input; empty where it is left out, None where it is computed."""
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None:
        return []
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(one) for one in tensor.numpy().reshape(-1)]


def _reduced(node: ir.Node, shape: Shape) -> list[int] | None:
    axes = _listed(node, shape, 1)
    if axes == [] and node.attributes.get_int("noop_with_empty_axes", 0) == 0:
        return list(range(len(shape)))
    return axes


def _cut(node: ir.Node, shape: Shape) -> list[int] | None:
    """Axes of a Slice that it shortens, turns, or enters elsewhere than at the first position.

    The last two keep the length of a batch of one, and are something else to more samples.
    """
    starts, axes, steps = (_numbers(node, place) for place in (1, 3, 4))
    if starts is None or axes is None or steps is None:
        return None
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    output = _output(node)
    named = zip(starts, (axis % len(shape) for axis in axes), steps, strict=True)
    return [
        axis
        for start, axis, step in named
        if start != 0 or step != 1 or shape[axis] != output[axis]
    ]


def _padded(node: ir.Node, shape: Shape) -> list[int] | None:
    """Axes of a Pad with rows to add or remove: one more and one less moves all others."""
    pads, axes = _numbers(node, 1), _numbers(node, 3)
    if pads is None or axes is None:
        return None
    axes = axes or list(range(len(shape)))
    both = zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
    return [axis % len(shape) for axis, before, behind in both if before or behind]


def _repeated(node: ir.Node, shape: Shape) -> list[int]:
    """Axes of a Tile that are longer behind it."""
    output = _output(node)
    return [axis for axis in range(len(shape)) if shape[axis] != output[axis]]


def _without(axes: Callable[[ir.Node, Shape], Sequence[int] | None]) -> Rule:
    """The same, where the axes may go."""

    def rule(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
        place = _beside(axes)(node, given, batch)
        gone = axes(node, _first(given).shape) or ()
        if place is None or node.attributes.get_int("keepdims", 1) != 0:
            return place
        return SamplePlace(
            place.axis - sum(axis < place.axis for axis in gone), place.outer, place.inner
        )

    return rule


def _gather(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """Of a constant by ids, or by constants along another axis."""
    data, ids = given[0], given[1]
    assert data is not None and ids is not None
    axis = node.attributes.get_int("axis", 0) % len(data.shape)
    if ids.place is not None:
        return ids.place if data.place is None and axis == 0 else None
    place = data.place
    if place is None or axis == place.axis:
        return None
    moved = len(ids.shape) - 1 if axis < place.axis else 0
    return SamplePlace(place.axis + moved, place.outer, place.inner)


def _matmul(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """Among stacked matrices, the left one's rows or the right one's columns."""
    del batch
    left, right = given[0], given[1]
    assert left is not None and right is not None
    rank = len(_output(node))
    found = set()
    for one, summed in ((left, -1), (right, -2)):
        if one.place is not None:
            axis = one.place.axis - len(one.shape)
            if axis == summed or len(one.shape) < 2:
                return None
            found.add(SamplePlace(axis + rank, one.place.outer, one.place.inner))
    both = left.place is not None and right.place is not None
    (place, *others) = found
    return None if others or (both and place.axis >= rank - 2) else place


def _gemm(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    """Samples as rows."""
    del batch
    place = _first(given).place
    others = any(one is not None and one.place is not None for one in given[1:])
    rows = place is not None and place.axis == 0 and not node.attributes.get_int("transA", 0)
    return place if rows and not others else None


def _expand(node: ir.Node, given: Given, batch: int) -> SamplePlace | None:
    del batch
    first = _first(given)
    extra = len(_output(node)) - len(first.shape)
    if first.place is None:
        return None
    axis = first.place.axis
    if first.shape[axis] != _output(node)[axis + extra]:
        return None
    return SamplePlace(axis + extra, first.place.outer, first.place.inner)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(IMAGES, _images),
    **dict.fromkeys(("Flatten", "Reshape"), _view),
    **dict.fromkeys(REDUCTIONS, _without(_reduced)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _without(_attribute(0))),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LpNormalization"), _beside(_attribute(-1))),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _beside(_from_attribute)),
    **dict.fromkeys(("Concat", "Split"), _beside(_attribute(0))),
    "Pad": _beside(_padded),
    "Slice": _beside(_cut),
    "Tile": _beside(_repeated),
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""GRU and LSTM have a place for each output, see sample_axis."""
