"""The borders of an ONNX file: its inputs and outputs around the uint8 interior.

A float or int8 port is a QuantizeLinear or DequantizeLinear (int8: both).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploykit.emit.onnx_format import rows_symbol
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.spec.quantized import Batch, IoType, Port, QuantizedNetwork, Tail, tail_axis

PORT_TYPE = {
    IoType.FLOAT: TensorProto.FLOAT,
    IoType.INT8: TensorProto.INT8,
    IoType.UINT8: TensorProto.UINT8,
}

TAIL_NODES: Mapping[Tail, str] = {Tail.SOFTMAX: "Softmax", Tail.LOG_SOFTMAX: "LogSoftmax"}


def write_input(port: Port, io: IoType, graph: OnnxGraph) -> None:
    """From what the app gives to the uint8 tensor behind it."""
    match io:
        case IoType.UINT8:
            pass
        case IoType.FLOAT:
            graph.quantize(port.name, port.tensor)
        case IoType.INT8:
            parameters = _signed_parameters(port, graph)
            real = graph.real(port.tensor)
            name = f"{port.name}.dequantize"
            graph.helper("DequantizeLinear", [port.name, *parameters], real, name)
            graph.quantize(real, port.tensor)
        case _:
            assert_never(io)


def write_output(port: Port, io: IoType, graph: OnnxGraph) -> None:
    """From a uint8 tensor to what the app reads."""
    integer = graph.integer(port.tensor)
    match io:
        case IoType.UINT8:
            pass
        case IoType.FLOAT:
            inputs = [integer, *graph.parameters(port.tensor)]
            real = port.name if port.tail is None else graph.real(port.tensor)
            graph.helper("DequantizeLinear", inputs, real, f"{port.name}.dequantize")
            if port.tail is not None:
                name = f"{port.name}.{port.tail.value}"
                axis = {"axis": tail_axis(len(graph.tensor(port.tensor).shape))}
                graph.helper(TAIL_NODES[port.tail], [real], port.name, name, axis)
        case IoType.INT8:
            real = graph.dequantize(port.tensor, port.name)
            inputs = [real, *_signed_parameters(port, graph)]
            graph.helper("QuantizeLinear", inputs, port.name, f"{port.name}.quantize")
        case _:
            assert_never(io)


def _signed_parameters(port: Port, graph: OnnxGraph) -> tuple[str, str]:
    """Scale and int8 zero point of an int8 port."""
    zero_point = graph.tensor(port.tensor).quantization.zero_point
    scale, _ = graph.parameters(port.tensor)
    return scale, graph.initializer(f"{port.name}.zero_point_int8", np.array(zero_point, np.int8))


def file_shape(shape: tuple[int, ...], batch: Batch) -> tuple[int | str, ...]:
    """With a name in the place of a batch that is open."""
    return shape if batch is Batch.FIXED else (rows_symbol(shape[0]), *shape[1:])


def port_info(port: Port, network: QuantizedNetwork) -> onnx.ValueInfoProto:
    """Name, element type and shape of a graph input or output."""
    shape = file_shape(network.shape(port.tensor), network.batch)
    kind = PORT_TYPE[network.io]
    if port.tensor in network.indices:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(network.indices[port.tensor].dtype))
    return helper.make_tensor_value_info(port.name, kind, shape)
