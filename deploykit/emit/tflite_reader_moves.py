"""What the operators of a .tflite file that only move integers mean in a QuantizedNetwork."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deploykit.emit.tflite_parts import FileOperator
from deploykit.emit.tflite_reader_numbers import read_embedding, read_kept_axis
from deploykit.emit.tflite_views import (
    Order,
    ReaderState,
    constant_of,
    network_axis,
    operand,
    per_tensor_quantization,
    refuse_activation,
    require_same_quantization,
)
from deploykit.spec.functions import function_of_table
from deploykit.spec.operators import (
    Concat,
    DepthToSpace,
    Flatten,
    Function,
    Gather,
    Lookup,
    Operator,
    Repeat,
    Slice,
    SpaceToDepth,
)
from deploykit.spec.quantized import Batch

ANY_LENGTH, END_MASK, FIRST_AXIS = -1, 1, 1
"""Size of a SLICE that goes to the end; slot and bit of a STRIDED_SLICE that does."""


def read_concat(state: ReaderState, operator: FileOperator) -> None:
    """CONCATENATION of tensors of one order."""
    refuse_activation(operator, 1)
    views = [state.unpadded(operator, position) for position in range(len(operator.inputs))]
    first = views[0]
    rank = len(first.tensor.shape)
    axis = network_axis(operator, operator.option(0) % rank, first)
    shape = list(first.tensor.shape)
    for view in views:
        other = view.tensor.shape
        if view.order is not first.order or len(other) != rank:
            raise operator.refuse("its inputs differ in rank or order.")
        if [*other[:axis], *other[axis + 1 :]] != [*shape[:axis], *shape[axis + 1 :]]:
            raise operator.refuse(f"its inputs differ beside axis {axis}.")
    shape[axis] = sum(view.tensor.shape[axis] for view in views)
    result = state.define(operator.output, tuple(shape), first.order)
    for view in views:
        require_same_quantization(operator, view.tensor, result)
    inputs = tuple(view.tensor.name for view in views)
    state.operators.append(Concat(result.name, inputs, result.name, axis))


def read_slice(state: ReaderState, operator: FileOperator) -> None:
    """SLICE or STRIDED_SLICE along one axis."""
    view = state.unpadded(operator)
    begin, extent = (
        constant_of(operator, position, np.dtype(np.int32), rank=1).tolist() for position in (1, 2)
    )
    shape = operand(operator, 0).shape
    if not len(begin) == len(extent) == len(shape):
        raise operator.refuse(f"it states {len(begin)} axes of a tensor with {len(shape)}.")
    dynamic = state.batch is Batch.DYNAMIC
    if operator.code == "SLICE":
        if dynamic:
            extent[0] = _whole_batch(operator, extent[0] == ANY_LENGTH, shape[0])
        ends = [start + size for start, size in zip(begin, extent, strict=True)]
        steps = [1] * len(shape)
    else:
        masks = [operator.option(slot) for slot in range(5)]
        if dynamic:
            extent[0] = _whole_batch(operator, masks[END_MASK] == FIRST_AXIS, shape[0])
            masks[END_MASK] = 0
        if any(masks):
            raise operator.refuse("deploykit reads it without masks.")
        ends = extent
        steps = constant_of(operator, 3, np.dtype(np.int32), rank=1).tolist()
    whole = [(0, size, 1) for size in shape]
    spans = list(zip(begin, ends, steps, strict=True))
    cut = [axis for axis, span in enumerate(spans) if span != whole[axis]]
    if len(cut) > 1:
        raise operator.refuse("deploykit reads it along one axis.")
    place = cut[0] if cut else len(shape) - 1
    start, stop, step = spans[place]
    if not 0 <= start < stop <= shape[place] or step < 1:
        raise operator.refuse(f"it takes {start} to {stop} in steps of {step} of {shape[place]}.")
    axis = network_axis(operator, place, view)
    left = list(view.tensor.shape)
    left[axis] = len(range(start, stop, step))
    result = state.moved(operator, view, tuple(left), view.order)
    state.operators.append(
        Slice(result.name, view.tensor.name, result.name, axis, start, stop, step)
    )


def _whole_batch(operator: FileOperator, whole: bool, batch: int) -> int:
    """The end of the first axis, which a file of dynamic batch must not state as a number."""
    if not whole:
        raise operator.refuse("it takes a fixed number of samples of a dynamic batch.")
    return batch


def read_gather(state: ReaderState, operator: FileOperator) -> None:
    """GATHER along an axis, of a function's table, or of rows by the file's own whole numbers."""
    if operand(operator, 0).values is not None:
        ids = operand(operator, 1)
        if ids.index in state.waiting or ids.name in state.indices:
            read_embedding(state, operator, ids)
        else:
            _read_table(state, operator)
        return
    view = state.unpadded(operator)
    indices = constant_of(operator, 1, np.dtype(np.int32), rank=1).tolist()
    place = operator.option(0) % len(view.tensor.shape)
    axis = network_axis(operator, place, view)
    if axis == 0 or operator.option(1):
        raise operator.refuse("deploykit reads it along any axis but the batch's.")
    left = list(view.tensor.shape)
    if not indices or min(indices) < 0 or max(indices) >= left[axis]:
        raise operator.refuse(f"its indices do not fit {left[axis]} positions.")
    left[axis] = len(indices)
    result = state.moved(operator, view, tuple(left), view.order)
    taken = tuple(map(int, indices))
    state.operators.append(Gather(result.name, view.tensor.name, result.name, axis, taken))


def _read_table(state: ReaderState, operator: FileOperator) -> None:
    """The function whose 256 integers, for these two quantizations, are the table's."""
    view, held = state.unpadded(operator, 1), operand(operator, 0)
    entries = constant_of(operator, 0, np.dtype(np.int8), rank=1)
    if not view.places or operator.option(0) or operator.option(1) or entries.size != 256:
        raise operator.refuse("deploykit reads a table of 256 by the places that a CAST gives.")
    result = state.define(operator.output, view.tensor.shape, view.order, view.unflattened)
    if per_tensor_quantization(held) != result.quantization:
        raise operator.refuse("its table is quantized otherwise than its output.")
    given = view.tensor.quantization
    found = function_of_table(entries, given, result.quantization, held.name)
    if found is None:
        raise operator.refuse(f"its table is none of {', '.join(one.value for one in Function)}.")
    state.operators.append(Lookup(result.name, view.tensor.name, result.name, *found))


def read_repeat(state: ReaderState, operator: FileOperator) -> None:
    """RESIZE_NEAREST_NEIGHBOR to whole multiples, from the corner."""
    view = state.unpadded(operator)
    size = constant_of(operator, 1, np.dtype(np.int32), rank=1).tolist()
    if view.order is not Order.NHWC or operator.option(0, "<?") or operator.option(1, "<?"):
        raise operator.refuse("deploykit reads it on NHWC images, without shifted corners.")
    batch, channels, height, width = view.tensor.shape
    if len(size) != 2 or size[0] % height or size[1] % width or min(size) < 1:
        raise operator.refuse(f"{height}x{width} to {size} is no whole multiple.")
    result = state.moved(operator, view, (batch, channels, *map(int, size)), Order.NHWC)
    rows, columns = size[0] // height, size[1] // width
    state.operators.append(
        Repeat(result.name, view.tensor.name, result.name, int(rows), int(columns))
    )


def read_depth_to_space(state: ReaderState, operator: FileOperator) -> None:
    """DEPTH_TO_SPACE."""
    view = state.unpadded(operator)
    block = operator.option(0)
    if view.order is not Order.NHWC or block < 1 or view.tensor.shape[1] % (block * block):
        raise operator.refuse(f"its block {block} does not fit {list(view.tensor.shape)}.")
    batch, depth, height, width = view.tensor.shape
    shape = (batch, depth // (block * block), height * block, width * block)
    result = state.moved(operator, view, shape, Order.NHWC)
    state.operators.append(DepthToSpace(result.name, view.tensor.name, result.name, block))


def read_space_to_depth(state: ReaderState, operator: FileOperator) -> None:
    """SPACE_TO_DEPTH."""
    view = state.unpadded(operator)
    block = operator.option(0)
    batch, *rest = view.tensor.shape
    if view.order is not Order.NHWC or block < 1 or rest[1] % block or rest[2] % block:
        raise operator.refuse(f"its block {block} does not fit {list(view.tensor.shape)}.")
    shape = (batch, rest[0] * block * block, rest[1] // block, rest[2] // block)
    result = state.moved(operator, view, shape, Order.NHWC)
    state.operators.append(SpaceToDepth(result.name, view.tensor.name, result.name, block))


def read_reshape(state: ReaderState, operator: FileOperator) -> None:
    """RESHAPE to [N, F], a Flatten, or of a tensor in the order C, H, W to any shape."""
    answer = state.answers.get(operand(operator, 0).index)
    if answer is not None:
        read_kept_axis(state, operator, answer)
        return
    view = state.unpadded(operator)
    if state.batch is Batch.DYNAMIC:
        stated = constant_of(operator, 1, np.dtype(np.int32), rank=1).tolist()
        if stated[:1] != [-1]:
            raise operator.refuse("it states a fixed number of samples of a dynamic batch.")
    batch, *rest = view.tensor.shape
    shape = (batch, int(np.prod(rest)))
    mixed = view.order is Order.NHWC and rest[0] > 1 and rest[1] * rest[2] > 1
    if len(operator.output.shape) != 2:
        if mixed or view.order is Order.FLAT_HWC or operator.output.shape[:1] != (batch,):
            raise operator.refuse("deploykit reads it where elements keep the order C, H, W.")
        if len(operator.output.shape) == 4:
            state.views[operator.output.index] = replace(view, reshaped_by=operator)
        else:
            state.reshape(view, operator.output, operator.output.shape)
        return
    order, unflattened = Order.FLAT, None
    if mixed:
        order, unflattened = Order.FLAT_HWC, (rest[0], rest[1], rest[2])
    elif view.order is Order.FLAT_HWC:
        order, unflattened = view.order, view.unflattened
    result = state.moved(operator, view, shape, order, unflattened)
    state.operators.append(Flatten(result.name, view.tensor.name, result.name))


def join_concats(state: ReaderState, hidden: frozenset[str]) -> None:
    """A concatenation that only another one along the same axis reads becomes part of it.

    hidden: names of tensors that one operator reads and that are no output. An integer network
    holds no such pair (graph.lowering merges them); a file does where it joins many.
    """
    made = {one.output: one for one in state.operators if isinstance(one, Concat)}
    gone: set[str] = set()
    kept: list[Operator] = []
    for operator in state.operators:
        if isinstance(operator, Concat):
            inputs: list[str] = []
            for name in operator.inputs:
                inner = made.get(name)
                if inner is not None and name in hidden and inner.axis == operator.axis:
                    inputs.extend(inner.inputs)
                    gone.add(name)
                else:
                    inputs.append(name)
            operator = replace(operator, inputs=tuple(inputs))
            made[operator.output] = operator
        kept.append(operator)
    state.operators = [operator for operator in kept if operator.output not in gone]
    for name in gone:
        del state.tensors[name]
