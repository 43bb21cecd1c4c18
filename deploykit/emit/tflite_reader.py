""".tflite -> QuantizedNetwork, sharing no operator code with the writer.

    QUANTIZE, DEQUANTIZE   at the ports: their io type
    CAST                   before a GATHER of a table: its integers, no operator
    TRANSPOSE              at the ports, or before a RESHAPE: an order, no operator
    PAD, PADV2             pads of the window that reads them, or a Pad
    regions                float islands and rearrangements, see tflite_reader_regions
    everything else        tflite_reader_operators.READERS

Files of other makers are read too where they use these forms.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from deploykit.emit.tflite_file import OPERATOR_NAMES, parse_tflite
from deploykit.emit.tflite_parts import FileOperator, FilePort, FileTensor, TfliteFile
from deploykit.emit.tflite_reader_bounds import join_clamps
from deploykit.emit.tflite_reader_moves import join_concats
from deploykit.emit.tflite_reader_operators import READERS
from deploykit.emit.tflite_reader_regions import find_regions, read_region
from deploykit.emit.tflite_views import (
    NO_PADS,
    Order,
    ReaderState,
    View,
    activation_quantization,
    operand,
    per_tensor_quantization,
)
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.operators import operator_inputs
from deploykit.spec.quantized import Batch, IoType, Port, QuantizedNetwork, Tail
from deploykit.spec.stem import stems_from_blocks

IO_TYPES = {"float32": IoType.FLOAT, "int8": IoType.INT8, "uint8": IoType.UINT8}


def read_tflite(data: bytes) -> QuantizedNetwork:
    """The network that a file holds, in NCHW.

    Pads that no window reaches are left out, operators are named after their outputs (the format
    has no operator names), and weights count as 8-bit where the file's metadata does not say
    otherwise (their element type says how they are stored, not what they need).
    """
    file = parse_tflite(data)
    io = _io_type(file)
    waiting = {port.tensor.index: port for port in file.inputs}
    state = ReaderState(waiting=waiting, batch=_batch(file), bits=file.bits)
    regions = find_regions(file)
    inside = {position for region in regions.values() for position in region.inner}
    for operator in file.operators:
        if operator.position in regions:
            read_region(state, operator, regions[operator.position])
            continue
        if operator.position in inside:
            continue
        match operator.code:
            case "QUANTIZE" | "DEQUANTIZE":
                _convert(state, operator)
            case "CAST":
                _cast(state, operator)
            case "TRANSPOSE":
                _transpose(state, operator)
            case "SOFTMAX" | "LOG_SOFTMAX":
                _softmax(state, operator)
            case "PAD" | "PADV2":
                _pad(state, operator)
            case code if code in READERS:
                READERS[code](state, operator)
            case code:
                raise UnsupportedOperatorError(
                    f"Operator {operator.position} is {code!r}, which deploykit does not read; it "
                    f"reads {', '.join(sorted(OPERATOR_NAMES.values()))}."
                )
    for index, port in list(state.waiting.items()):
        state.resolve(file.tensors[index], port, Order.NHWC)
    outputs = tuple(_output(state, port) for port in file.outputs)
    inputs = tuple(state.inputs[port.name] for port in file.inputs)
    reads = Counter(name for operator in state.operators for name in operator_inputs(operator))
    public = {port.tensor for port in (*inputs, *outputs)}
    hidden = frozenset(name for name, count in reads.items() if count == 1) - public
    join_clamps(state, hidden)
    join_concats(state, hidden)
    network = QuantizedNetwork(
        state.tensors, tuple(state.operators), inputs, outputs, io, state.constants, state.batch,
        state.indices,
    )  # fmt: skip
    return stems_from_blocks(network, file.stems)


def _batch(file: TfliteFile) -> Batch:
    """Dynamic where every activation may be resized, integers along their first axis."""
    stored = {
        one.output.index
        for one in file.operators
        if one.code == "DEQUANTIZE" and operand(one, 0).values is not None
    }
    activations = [one for one in file.tensors if one.values is None and one.index not in stored]
    dynamic = [tensor for tensor in activations if -1 in tensor.signature]
    if not dynamic:
        return Batch.FIXED
    ports = [port.tensor for port in file.inputs]
    fixed = [tensor for tensor in activations if tensor not in dynamic]
    front = all(one.shape[0] == 1 and one.signature[0] == -1 for one in ports)
    if fixed or not front:
        raise GraphError(
            "The batch is dynamic in some of the .tflite file's tensors and not 1 or fixed in "
            "others; write the file again."
        )
    return Batch.DYNAMIC


def _io_type(file: TfliteFile) -> IoType:
    ports = (*file.inputs, *file.outputs)
    for side in (file.inputs, file.outputs):
        names = [port.name for port in side]
        if not names or len(set(names)) != len(names):
            raise GraphError(f"The .tflite file has the ports {names}; names must be unique.")
    kinds = {port.tensor.dtype.name for port in ports} - {"int32", "int64"}
    if not kinds:
        return IoType.FLOAT
    if len(kinds) != 1 or not kinds <= IO_TYPES.keys():
        raise GraphError(
            f"The graph's inputs and outputs have the types {sorted(kinds)}; deploykit reads files "
            "where all are float32, all int8 or all uint8."
        )
    return IO_TYPES[kinds.pop()]


def _convert(state: ReaderState, operator: FileOperator) -> None:
    """QUANTIZE of an input, DEQUANTIZE of an output, or uint8 <-> int8 at either."""
    source, result = operand(operator, 0), operator.output
    if source.dtype == np.uint8 or result.dtype == np.uint8:
        _shifted_by_128(operator, source, result)
    if source.index in state.waiting and source.dtype != np.int8:
        activation_quantization(result)
        state.waiting[result.index] = state.waiting.pop(source.index)
    elif source.dtype == np.int8 and result.dtype in (np.float32, np.uint8):
        real = result.dtype == np.float32
        state.views[result.index] = replace(state.unpadded(operator), real=real)
    else:
        raise operator.refuse("deploykit reads it at the graph's inputs and outputs only.")


def _cast(state: ReaderState, operator: FileOperator) -> None:
    """uint8 to int32, the places in a table; see read_gather."""
    source, result = operand(operator, 0), operator.output
    if source.dtype != np.uint8 or result.dtype != np.int32 or source.index in state.waiting:
        raise operator.refuse("deploykit reads it of a uint8 activation, to int32.")
    state.views[result.index] = replace(state.unpadded(operator), places=True)


def _softmax(state: ReaderState, operator: FileOperator) -> None:
    """SOFTMAX or LOG_SOFTMAX of an output's real values, along the last axis."""
    view = state.unpadded(operator)
    plain = view.real and view.tail is None and view.order in (Order.FLAT, Order.NHWC)
    logarithm = operator.code == "LOG_SOFTMAX"
    if not plain or (not logarithm and operator.real_option(0) != 1.0):
        raise operator.refuse("deploykit reads it of an output's real values, beta 1.")
    tail = Tail.LOG_SOFTMAX if logarithm else Tail.SOFTMAX
    state.views[operator.output.index] = replace(view, tail=tail)


def _shifted_by_128(operator: FileOperator, source: FileTensor, result: FileTensor) -> None:
    unsigned, signed = (source, result) if source.dtype == np.uint8 else (result, source)
    shifted = per_tensor_quantization(unsigned)
    expected = replace(shifted, zero_point=shifted.zero_point - 128)
    if activation_quantization(signed) != expected:
        raise operator.refuse("uint8 and int8 must have one scale and zero points 128 apart.")


def _transpose(state: ReaderState, operator: FileOperator) -> None:
    axes = operand(operator, 1).values
    permutation = () if axes is None else tuple(int(axis) for axis in axes.reshape(-1))
    source, result = operand(operator, 0), operator.output
    if permutation == (0, 2, 3, 1) and source.index in state.waiting:
        shape = tuple(source.shape[axis] for axis in permutation if axis < len(source.shape))
        if shape != result.shape:
            raise operator.refuse(f"{list(source.shape)} cannot become {list(result.shape)}.")
        state.resolve(result, state.waiting[source.index], Order.NHWC)
        return
    view = state.unpadded(operator)
    if permutation == (0, 2, 3, 1) and view.reshaped_by is not None:
        state.reshape(view, result, view.reshaped_by.output.shape)
        return
    view = state.own_shape(view)
    if permutation != (0, 3, 1, 2) or view.order is not Order.NHWC:
        raise operator.refuse("deploykit reads NCHW to NHWC at inputs, and NHWC to NCHW.")
    state.views[result.index] = replace(view, order=Order.NCHW)


def _pad(state: ReaderState, operator: FileOperator) -> None:
    """The padded tensor is a view; the window that reads it takes the pads over."""
    view = state.unpadded(operator)
    widths = operand(operator, 1).values
    if widths is None or widths.shape != (4, 2) or view.order is not Order.NHWC:
        raise operator.refuse("deploykit reads constant pads of an NHWC image.")
    batch, (top, bottom), (left, right), channels = widths.tolist()
    if any((*batch, *channels)) or min(top, bottom, left, right) < 0:
        raise operator.refuse(f"its pads {widths.tolist()} must lie along H and W.")
    fill = view.tensor.quantization.zero_point
    if operator.code == "PADV2":
        value = operand(operator, 2)
        if value.values is None or value.values.size != 1 or value.dtype != np.int8:
            raise operator.refuse("its fill must be one int8 constant.")
        fill = int(value.values.reshape(-1)[0])
    if activation_quantization(operator.output) != view.tensor.quantization:
        raise operator.refuse("its input and output must share one scale and zero point.")
    pads = (top, left, bottom, right)
    padded = view if pads == NO_PADS else replace(view, pads=pads, fill=fill, padded_by=operator)
    state.views[operator.output.index] = padded


def _output(state: ReaderState, port: FilePort) -> Port:
    if port.tensor.index in state.answers:
        name = state.answers[port.tensor.index]
        return Port(port.name, name)
    view = state.views.get(port.tensor.index)
    if view is not None:
        view = state.own_pads(state.own_shape(view))
    if view is None or not _is_public(view):
        raise GraphError(
            f"Output {port.name!r} is not computed, or is a padded or H, W, C-flattened helper; "
            "only a tensor that a network can have may be an output."
        )
    return Port(port.name, view.tensor.name, view.tail)


def _is_public(view: View) -> bool:
    return view.pads == NO_PADS and view.order is not Order.FLAT_HWC
