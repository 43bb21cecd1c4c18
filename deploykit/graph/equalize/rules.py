"""Operators that a positive factor per channel passes: f(k x) = k f(x), channel by channel.

A channel is a place along axis 1. What has no row here pins the channels that it reads and makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string, constant, floats
from deploykit.spec.network import static_shape

CHANNELS = 1
Rule = Callable[[ir.Node, Sequence[Labels], Atoms], list[Labels] | str]
"""Labels [C] of the outputs from those of the activations that a node reads, in order; or why the
node pins them."""

UNSCALED = frozenset((0.0, np.inf, -np.inf))
"""Numbers that a positive factor leaves as they are."""


def _same(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    if len(node.outputs) != 1 or len(read) != 1 or not _is_activation(node.inputs[0]):
        return "reads or makes several tensors"
    return [read[0]]


def _is_activation(value: ir.Value | None) -> bool:
    return value is not None and constant(value) is None


def _clip(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    bounds = [held for value in node.inputs[1:] if (held := floats(value)) is not None]
    if len(read) != 1 or node.attributes or not _is_activation(node.inputs[0]):
        return "has bounds that are computed"
    if all(set(held.reshape(-1)) <= UNSCALED for held in bounds):
        return [read[0]]
    return "has a bound other than zero, which no factor passes"


def _joined(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    if len(read) != len(node.inputs):
        return "has a constant operand"
    ranks = {len(static_shape(value) or ()) for value in node.inputs}
    if len(ranks) != 1:
        return "broadcasts over another rank"
    widest = max(read, key=len)
    for labels in read:
        atoms.join(labels, widest)
    return [widest]


def _times(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    source = node.inputs[0] if constant(node.inputs[0]) is None else node.inputs[1]
    shape, into = static_shape(source), static_shape(node.outputs[0])
    if len(read) != 1 or len(node.inputs) != 2:
        return "multiplies activations"
    if node.op_type == "Div" and constant(node.inputs[1]) is None:
        return "divides by an activation"
    if shape is None or into is None or len(shape) != len(into) or shape[1] != into[1]:
        return "broadcasts"
    return [read[0]]


def _resize(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    shape, into = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    cropped = attribute_string(node, "coordinate_transformation_mode", "half_pixel")
    if len(read) != 1:
        return "reads sizes that are computed"
    if cropped == "tf_crop_and_resize" or shape is None or into is None or shape[1] != into[1]:
        return "makes values of its own"
    scales = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is not None and scales.size:
        along = _axes(attribute_ints(node, "axes", range(len(shape))), len(shape))
        if CHANNELS in along and scales[along.index(CHANNELS)] != 1.0:
            return "mixes channels"
    return [read[0]]


def _axes(stated: Sequence[int], rank: int) -> list[int]:
    """Counted from the front."""
    return [int(axis) % rank for axis in stated]


def _pad(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    """Where nothing is padded along the channels: as many in front as are cut behind moves them."""
    shape, sizes = static_shape(node.inputs[0]), constant(node.inputs[1])
    if len(read) != 1 or shape is None or sizes is None:
        return "has sizes or a value that are computed"
    stated = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    along = _axes(range(len(shape)) if stated is None else stated.tolist(), len(shape))
    if CHANNELS in along and sizes.reshape(2, -1)[:, along.index(CHANNELS)].any():
        return "pads or cuts channels"
    fill = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    constant_fill = attribute_string(node, "mode", "constant") == "constant"
    if constant_fill and fill is not None and not set(fill.reshape(-1)) <= UNSCALED:
        return "pads with a value other than zero, which no factor passes"
    return [read[0]]


def _view(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    """Where [N, C] stays in front, or every channel becomes a block of features."""
    shape, into = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if len(read) != 1 or shape is None or into is None or len(shape) < 2 or len(into) < 2:
        return "moves elements between channels"
    if shape[:2] == into[:2]:
        return [read[0]]
    pixels = int(np.prod(shape[2:], dtype=np.int64))
    if into == (shape[0], shape[1] * pixels):
        return [np.repeat(read[0], pixels)]
    return "moves elements between channels"


def _transpose(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    order = attribute_ints(node, "perm", ())
    return [*read] if order[:2] == (0, 1) else "moves the axis of the channels"


def _concat(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    rank = len(static_shape(node.outputs[0]) or ())
    if len(read) != len(node.inputs) or rank < 2:
        return "joins constants"
    if attribute_int(node, "axis", 0) % rank == CHANNELS:
        return [np.concatenate(list(read))]
    for labels in read[1:]:
        atoms.join(labels, read[0])
    return [read[0]]


def _selected(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    """Gather by a list of constants."""
    rank, chosen = len(static_shape(node.inputs[0]) or ()), constant(node.inputs[1])
    axis = attribute_int(node, "axis", 0) % max(rank, 1)
    if len(read) != 1 or chosen is None or chosen.ndim != 1 or axis < CHANNELS:
        return "takes elements that are computed"
    return [read[0][chosen]] if axis == CHANNELS else [read[0]]


def _split(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    rank = len(static_shape(node.inputs[0]) or ())
    if len(read) != 1 or rank < 2:
        return "takes elements that are computed"
    if attribute_int(node, "axis", 0) % rank != CHANNELS:
        return [read[0]] * len(node.outputs)
    sizes = [(static_shape(value) or (0, 0))[1] for value in node.outputs]
    return list(np.split(read[0], np.cumsum(sizes)[:-1]))


def _slice(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    shape, into = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    bounds = [constant(value) for value in node.inputs[1:]]
    if len(read) != 1 or shape is None or into is None or bounds[0] is None:
        return "takes elements that are computed"
    rest = [*bounds[2:], None, None]
    along = _axes(range(len(bounds[0])) if rest[0] is None else rest[0].tolist(), len(shape))
    if shape[:2] != into[:2]:
        return "takes some channels"
    # Of all channels only the order may differ.
    turned = rest[1] is not None and CHANNELS in along and rest[1][along.index(CHANNELS)] < 0
    return "turns the order of the channels" if turned else [read[0]]


def _pixels(node: ir.Node, read: Sequence[Labels], atoms: Atoms) -> list[Labels] | str:
    block = attribute_int(node, "blocksize", 1) ** 2
    if node.op_type == "SpaceToDepth":
        return [np.tile(read[0], block)]
    crd = attribute_string(node, "mode", "DCR") == "CRD"
    apart = read[0].reshape(-1, block).T if crd else read[0].reshape(block, -1)
    for labels in apart[1:]:
        atoms.join(labels, apart[0])
    return [np.array(apart[0])]


RULES: Mapping[str, Rule] = {
    "Add": _joined,
    "AveragePool": _same,
    "Clip": _clip,
    "Concat": _concat,
    "DepthToSpace": _pixels,
    "Div": _times,
    "Dropout": _same,
    "Flatten": _view,
    "Gather": _selected,
    "GlobalAveragePool": _same,
    "GlobalMaxPool": _same,
    "Identity": _same,
    "LeakyRelu": _same,
    "Max": _joined,
    "MaxPool": _same,
    "Min": _joined,
    "Mul": _times,
    "Neg": _same,
    "PRelu": _same,
    "Pad": _pad,
    "Relu": _same,
    "Reshape": _view,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _pixels,
    "Split": _split,
    "Squeeze": _view,
    "Sub": _joined,
    "Sum": _joined,
    "Transpose": _transpose,
    "Unsqueeze": _view,
}
