"""MAXIMUM and MINIMUM of a .tflite file: of two tensors, or the bounds of a Clamp."""

from __future__ import annotations

from dataclasses import replace

from deploykit.emit.tflite_parts import FileOperator
from deploykit.emit.tflite_views import (
    Order,
    ReaderState,
    per_tensor_quantization,
    require_same_quantization,
)
from deploykit.spec.operators import Clamp, Maximum, Minimum


def read_extreme(state: ReaderState, operator: FileOperator) -> None:
    """MAXIMUM or MINIMUM of two tensors of one shape and quantization, or with a constant."""
    sizes = [
        tensor.values.size for tensor in operator.inputs if tensor and tensor.values is not None
    ]
    if sizes == [1]:
        read_bound(state, operator)
        return
    if sizes:
        _read_constant(state, operator)
        return
    left, right = (state.unpadded(operator, position) for position in (0, 1))
    alike = left.tensor.shape == right.tensor.shape and left.order is right.order
    if not alike or left.unflattened != right.unflattened or left.order is Order.NCHW:
        raise operator.refuse("deploykit reads it of two tensors of one shape and order.")
    result = state.define(operator.output, left.tensor.shape, left.order, left.unflattened)
    for view in (left, right):
        require_same_quantization(operator, view.tensor, result)
    kind = Maximum if operator.code == "MAXIMUM" else Minimum
    state.operators.append(kind(result.name, left.tensor.name, right.tensor.name, result.name))


def _read_constant(state: ReaderState, operator: FileOperator) -> None:
    """MAXIMUM or MINIMUM with a constant of several numbers."""
    held = [state.constant(operator, position) for position in (0, 1)]
    constant = next((one for one in held if one is not None), None)
    if constant is None or None not in held:
        raise operator.refuse("both of its operands are constants.")
    view = state.unpadded(operator, held.index(None))
    shape, source = constant.values.shape, view.tensor
    fits = len(shape) == len(source.shape) and all(
        size in (1, full) for size, full in zip(shape, source.shape, strict=True)
    )
    if not fits or constant.quantization != source.quantization or view.order is Order.NCHW:
        raise operator.refuse(f"its constant {list(shape)} does not fit {list(source.shape)}.")
    if view.unflattened is not None:
        raise operator.refuse("its constant has the order C, H, W, and its input does not.")
    result = state.moved(operator, view, source.shape, view.order)
    left, right = (source.name if one is None else one.name for one in held)
    kind = Maximum if operator.code == "MAXIMUM" else Minimum
    state.operators.append(kind(result.name, left, right, result.name))


def read_bound(state: ReaderState, operator: FileOperator) -> None:
    """MAXIMUM or MINIMUM with one constant; a MAXIMUM that only a MINIMUM reads joins it."""
    constant = next(
        (tensor for tensor in operator.inputs if tensor and tensor.values is not None), None
    )
    if constant is None or constant.values is None or constant.values.size != 1:
        raise operator.refuse("deploykit reads it with one constant number only.")
    view = state.unpadded(operator, 0 if operator.inputs[1] is constant else 1)
    if per_tensor_quantization(constant) != view.tensor.quantization:
        raise operator.refuse("its constant is quantized otherwise than its input.")
    bound = int(constant.values.reshape(-1)[0])
    is_low = operator.code == "MAXIMUM"
    result = state.moved(operator, view, view.tensor.shape, view.order, view.unflattened)
    low, high = (bound, 127) if is_low else (-128, bound)
    state.operators.append(Clamp(result.name, view.tensor.name, result.name, low, high))


def join_clamps(state: ReaderState, hidden: frozenset[str]) -> None:
    """Clamp(low, 127) and the Clamp(-128, high) behind it become one.

    hidden: names of tensors that one operator reads and that are no output.
    """
    joined: list[Clamp] = []
    gone: set[str] = set()
    by_output = {clamp.output: clamp for clamp in state.operators if isinstance(clamp, Clamp)}
    for upper in by_output.values():
        lower = by_output.get(upper.input)
        if lower is None or upper.input not in hidden:
            continue
        if lower.low == -128 or lower.high != 127 or upper.low != -128 or upper.high == 127:
            continue
        joined.append(replace(upper, input=lower.input, low=lower.low))
        del state.tensors[lower.output]
        gone.add(lower.output)
    replaced = {clamp.output: clamp for clamp in joined}
    state.operators = [
        replaced.get(operator.output, operator)
        for operator in state.operators
        if operator.output not in gone
    ]
