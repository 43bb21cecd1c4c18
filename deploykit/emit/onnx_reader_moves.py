"""What the nodes of an ONNX file that move or compare integers mean in a QuantizedNetwork."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from deploykit.emit.onnx_format import CHANNELS, turning, turns
from deploykit.emit.onnx_operands import Operands
from deploykit.emit.onnx_parts import attribute, refuse_other_attributes, window
from deploykit.errors import GraphError
from deploykit.spec.functions import function_of_table
from deploykit.spec.operators import (
    Clamp,
    Concat,
    DepthToSpace,
    Embedding,
    Flatten,
    Gather,
    IntegerTable,
    Lookup,
    MaxPool,
    Operator,
    Pad,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
)
from deploykit.spec.quantized import UINT8_SHIFT, as_int8

WINDOW_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations")


def max_pool(operands: Operands, node: NodeProto) -> Operator:
    """MaxPool with a window over height and width."""
    refuse_other_attributes(node, WINDOW_ATTRIBUTES)
    geometry = window(node, ())
    return MaxPool(node.name, operands.integers(node), operands.tensor(node.output[0]), geometry)


def flatten(operands: Operands, node: NodeProto) -> Operator:
    """Flatten behind the batch."""
    if attribute(node, "axis", 1) != 1:
        raise GraphError(f"Flatten {node.name!r} has an axis other than 1; keep the batch apart.")
    return Flatten(node.name, operands.integers(node), operands.tensor(node.output[0]))


def clamp(operands: Operands, node: NodeProto) -> Operator:
    """Clip between two integers."""
    if len(node.input) != 3:
        raise GraphError(f"Clip {node.name!r} has an open end; write both bounds.")
    low, high = (int(operands.parts.constant(name, node)) - UINT8_SHIFT for name in node.input[1:])
    return Clamp(node.name, operands.integers(node), operands.tensor(node.output[0]), low, high)


def concat(operands: Operands, node: NodeProto) -> Operator:
    """Concat."""
    read = tuple(operands.integers(node, index) for index in range(len(node.input)))
    axis = _whole(attribute(node, "axis", 0))
    return Concat(node.name, read, operands.tensor(node.output[0]), axis)


def slice_(operands: Operands, node: NodeProto) -> Operator:
    """Slice of one axis."""
    spans = [operands.parts.constant(name, node) for name in node.input[1:]]
    if len(spans) != 4 or any(span.size != 1 for span in spans):
        raise GraphError(f"Slice {node.name!r} must state start, stop, axis and step of one axis.")
    start, stop, axis, step = (int(span.item()) for span in spans)
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return Slice(node.name, source, output, axis, start, stop, step)


def gather(operands: Operands, node: NodeProto) -> Operator:
    """Gather along an axis, of a function's table, or of rows by the file's own whole numbers."""
    if operands.parts.is_constant(node.input[0]):
        own = operands.parts.maker(node.input[1]) is None
        return _embedding(operands, node) if own else _table(operands, node)
    source, output = operands.integers(node), operands.tensor(node.output[0])
    axis, taken = _whole(attribute(node, "axis", 0)), _indices(operands, node)
    if axis < CHANNELS or turns(axis, len(operands.tensors[output].shape)):
        raise GraphError(f"Gather {node.name!r} takes along axis {axis} without a Transpose.")
    return Gather(node.name, source, output, axis, taken)


def turned_gather(operands: Operands, node: NodeProto) -> Operator:
    """Gather along the last axis, between two Transposes, of which `node` is the second."""
    taking = operands.parts.producer(node.input[0], node, "Gather")
    turning_there = operands.parts.producer(taking.input[0], taking, "Transpose")
    output = operands.tensor(node.output[0])
    rank = len(operands.tensors[output].shape)
    found = [attribute(one, "perm", []) for one in (turning_there, node)]
    if found != list(turning(rank)) or attribute(taking, "axis", 0) != CHANNELS:
        raise GraphError(f"Transpose {node.name!r} is no end of a Gather along the last axis.")
    source = operands.integers(turning_there)
    return Gather(node.name, source, output, rank - 1, _indices(operands, taking))


def _indices(operands: Operands, node: NodeProto) -> tuple[int, ...]:
    """A list of positions, none of which counts from the end."""
    indices = operands.parts.constant(node.input[1], node)
    if indices.ndim != 1 or indices.min(initial=0) < 0:
        raise GraphError(f"Gather {node.name!r} must take by a list of indices from 0.")
    return tuple(int(index) for index in indices)


def _embedding(operands: Operands, node: NodeProto) -> Operator:
    """Rows of a uint8 table by a graph input of whole numbers."""
    values, ids = operands.parts.constant(node.input[0], node), str(node.input[1])
    whole = operands.parts.element_type(ids) in (TensorProto.INT32, TensorProto.INT64)
    if not whole or attribute(node, "axis", 0) != 0 or values.ndim != 2 or values.dtype != np.uint8:
        raise GraphError(f"Gather {node.name!r} takes no rows of a uint8 table by whole numbers.")
    table = IntegerTable(str(node.input[0]), as_int8(values))
    return Embedding(node.name, ids, operands.tensor(node.output[0]), table)


def _table(operands: Operands, node: NodeProto) -> Operator:
    """The function whose 256 integers, for these two quantizations, are the table's."""
    cast = operands.parts.producer(node.input[1], node, "Cast")
    entries = operands.parts.constant(node.input[0], node)
    plain = attribute(node, "axis", 0) == 0 and attribute(cast, "to", 0) == TensorProto.INT32
    if not plain or entries.shape != (256,) or entries.dtype != np.uint8:
        raise GraphError(f"Gather {node.name!r} reads no table of 256 by uint8 integers.")
    source, output = operands.integers(cast), operands.tensor(node.output[0])
    given, into = (operands.tensors[name].quantization for name in (source, output))
    found = function_of_table(as_int8(entries), given, into, node.input[0])
    if found is None:
        raise GraphError(f"Gather {node.name!r} reads the table of no known function.")
    return Lookup(node.name, source, output, *found)


def repeat(operands: Operands, node: NodeProto) -> Operator:
    """Resize that repeats whole pixels."""
    ways = [
        attribute(node, name, b"")
        for name in ("mode", "coordinate_transformation_mode", "nearest_mode")
    ]
    scales = operands.parts.constant(node.input[2], node)
    whole = scales.shape == (4,) and np.array_equal(scales, np.rint(scales))
    if ways != [b"nearest", b"asymmetric", b"floor"] or not whole or (scales[:2] != 1).any():
        raise GraphError(f"Resize {node.name!r} does not repeat whole pixels.")
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return Repeat(node.name, source, output, int(scales[2]), int(scales[3]))


def depth_to_space(operands: Operands, node: NodeProto) -> Operator:
    """DepthToSpace in DCR order."""
    if attribute(node, "mode", b"DCR") != b"DCR":
        raise GraphError(f"DepthToSpace {node.name!r} has another mode than DCR.")
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return DepthToSpace(node.name, source, output, _whole(attribute(node, "blocksize", 1)))


def space_to_depth(operands: Operands, node: NodeProto) -> Operator:
    """SpaceToDepth."""
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return SpaceToDepth(node.name, source, output, _whole(attribute(node, "blocksize", 1)))


def pad(operands: Operands, node: NodeProto) -> Operator:
    """Pad of height and width with one integer."""
    refuse_other_attributes(node, ())
    if len(node.input) != 3:
        raise GraphError(f"Pad {node.name!r} must state its pads and what they hold.")
    widths, fill = (operands.parts.constant(name, node) for name in node.input[1:])
    if widths.size != 8 or fill.dtype != np.uint8 or widths.min() < 0 or widths[[0, 1, 4, 5]].any():
        raise GraphError(f"Pad {node.name!r} has no integer form: {widths.tolist()}.")
    top, left, bottom, right = (int(widths[place]) for place in (2, 3, 6, 7))
    source, output = operands.integers(node), operands.tensor(node.output[0])
    held = int(fill.item()) - UINT8_SHIFT
    return Pad(node.name, source, output, (top, left, bottom, right), held)


def reshape(operands: Operands, node: NodeProto) -> Operator:
    """Reshape to a constant shape, which is the output's own behind the batch."""
    output = operands.tensor(node.output[0])
    shape = tuple(operands.parts.constant(node.input[1], node).tolist())
    if shape != (0, *operands.tensors[output].shape[1:]):
        raise GraphError(f"Reshape {node.name!r} to {shape} does not give its output's shape.")
    return Reshape(node.name, operands.integers(node), output)


def _whole(value: object) -> int:
    return int(str(value))


MOVES: Mapping[str, Callable[[Operands, NodeProto], Operator]] = {
    "Clip": clamp,
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Flatten": flatten,
    "Gather": gather,
    "MaxPool": max_pool,
    "Pad": pad,
    "Reshape": reshape,
    "Resize": repeat,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Transpose": turned_gather,
}
