"""What a .tflite file's operators on whole numbers mean: rows of a table, the largest entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deploykit.emit.tflite_parts import FileOperator, FileTensor
from deploykit.emit.tflite_views import (
    Order,
    ReaderState,
    constant_of,
    network_axis,
    operand,
    per_tensor_quantization,
)
from deploykit.spec.operators import ArgMax, Embedding, IntegerTable
from deploykit.spec.quantized import IndexTensor, Port


def read_embedding(state: ReaderState, operator: FileOperator, ids: FileTensor) -> None:
    """Rows of a table by a port of int32, which its smallest table bounds."""
    held = operand(operator, 0)
    rows = constant_of(operator, 0, np.dtype(np.int8), rank=2)
    if ids.dtype != np.int32 or operator.option(0) or operator.option(1) or len(ids.shape) > 2:
        raise operator.refuse("deploykit reads rows of a table by int32 [N] or [N, T].")
    port = state.waiting.pop(ids.index, None)
    name = ids.name if port is None else port.name
    known = state.indices.get(name, IndexTensor(name, ids.shape, len(rows)))
    state.indices[name] = replace(known, limit=min(known.limit, len(rows)))
    state.inputs[name] = Port(name, name)
    result = state.define(operator.output, (*ids.shape, rows.shape[1]), Order.FLAT)
    if per_tensor_quantization(held) != result.quantization:
        raise operator.refuse("its table is quantized otherwise than its output.")
    table = IntegerTable(held.name, rows)
    state.operators.append(Embedding(result.name, name, result.name, table))


def read_arg_max(state: ReaderState, operator: FileOperator) -> None:
    """ARG_MAX along the last axis of the file, or along any of a tensor that is no image."""
    view, result = state.unpadded(operator), operator.output
    (axis,) = constant_of(operator, 1, np.dtype(np.int32)).reshape(-1).tolist()
    place = network_axis(operator, int(axis) % len(view.tensor.shape), view)
    if result.dtype not in (np.dtype(np.int32), np.dtype(np.int64)) or place == 0:
        raise operator.refuse("deploykit reads it within a sample, to int32 or int64.")
    if view.order is Order.NHWC and place != 1:
        raise operator.refuse("deploykit reads it along the channels of an image.")
    shape = list(view.tensor.shape)
    entries = shape.pop(place)
    _answer(state, operator, tuple(shape), entries)
    state.operators.append(ArgMax(result.name, view.tensor.name, result.name, place))


def _answer(
    state: ReaderState, operator: FileOperator, shape: tuple[int, ...], entries: int
) -> None:
    """Whole numbers that the file computes."""
    result = operator.output
    if int(np.prod(shape)) != int(np.prod(result.shape)):
        raise operator.refuse(f"its result is {list(result.shape)}, where {list(shape)} belongs.")
    kind = result.dtype.name
    state.indices[result.name] = IndexTensor(result.name, shape, entries, kind)
    state.answers[result.index] = result.name


def read_kept_axis(state: ReaderState, operator: FileOperator, name: str) -> None:
    """A RESHAPE behind an ARG_MAX: the axis stays, with length 1."""
    made = state.operators[-1]
    held = state.indices.pop(name)
    del state.answers[operand(operator, 0).index]
    if not isinstance(made, ArgMax) or made.output != name:
        raise operator.refuse("deploykit reads it of whole numbers right behind their ARG_MAX.")
    shape = (*held.shape[: made.axis], 1, *held.shape[made.axis :])
    _answer(state, operator, shape, held.limit)
    called = operator.output.name
    state.operators[-1] = replace(made, name=called, output=called)
