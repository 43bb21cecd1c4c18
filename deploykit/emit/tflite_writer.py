"""QuantizedNetwork -> .tflite: int8 activations, NHWC inside, nothing decided anew.

Ports by io type, between the public tensor and the integer one:

    FLOAT   QUANTIZE in, DEQUANTIZE out
    INT8    none: the port is the integer tensor
    UINT8   QUANTIZE between zero points 128 apart, scale unchanged
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from deploykit.emit.tflite_file import BITS, REARRANGED, STEMS
from deploykit.emit.tflite_flatbuffer import FilePort, pack_graph
from deploykit.emit.tflite_float_live import live_part
from deploykit.emit.tflite_graph import Options, TfliteGraph
from deploykit.emit.tflite_layout import (
    TfliteLayout,
    file_shape,
    flattened_order,
    is_transposed,
    port_shape,
    tensor_names,
)
from deploykit.emit.tflite_lowering import transpose
from deploykit.emit.tflite_operators import lower
from deploykit.emit.tflite_site import Site
from deploykit.spec.operators import Rearrange
from deploykit.spec.quantized import (
    UINT8_SHIFT,
    ActivationTensor,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
    Tail,
    weighted,
)
from deploykit.spec.stem import Runtime, stems_as_blocks

CARRIED_BITS = 8
"""That a weight's integers take where the file does not say otherwise."""
TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


def write_tflite(network: QuantizedNetwork, layout: TfliteLayout = TfliteLayout.NHWC) -> bytes:
    """Bytes of the file; the same network always gives the same bytes.

    layout: of the graph's own rank-4 inputs and outputs. The signature "serving_default" carries
    the ports' public names; tensor_names() says what the integer tensors are called.
    """
    network, stems = stems_as_blocks(network, Runtime.LITERT)
    graph = TfliteGraph(network.batch)
    names = tensor_names(network, layout)
    index = {
        tensor.name: graph.activation(
            names[tensor.name], file_shape(tensor.shape), tensor.quantization
        )
        for tensor in network.tensors.values()
    }
    taken = {port.tensor for port in network.inputs}
    for held in network.indices.values():
        kind = np.int32 if held.name in taken else np.dtype(held.dtype).type
        shape = port_shape(held.shape, layout)
        index[held.name] = graph.activation(names[held.name], shape, None, kind)
    inputs = [
        FilePort(port.name, _add_input(graph, network, port, layout, index[port.tensor]))
        for port in network.inputs
    ]
    site = Site(network, graph, index, flattened_order(network))
    for operator in network.operators:
        lower(operator, site)
    outputs = [
        FilePort(port.name, _add_output(graph, network, port, layout, index[port.tensor]))
        for port in network.outputs
    ]
    # An input that nothing reads is quantized all the same, as its tensor is one of the network's.
    kept = [index[port.tensor] for port in network.inputs]
    live, place = live_part(graph, [*(port.tensor for port in (*inputs, *outputs)), *kept])
    moved_in, moved_out = (
        [FilePort(port.name, place[port.tensor]) for port in side] for side in (inputs, outputs)
    )
    rearranged = {
        names[operator.output]: names[operator.input]
        for operator in network.operators
        if isinstance(operator, Rearrange)
    }
    stated = {names[output]: text for output, text in stems.items()}
    narrow = {
        operator.weight.name: str(operator.weight.bits)
        for operator in weighted(network)
        if operator.weight.bits != CARRIED_BITS
    }
    notes = {REARRANGED: rearranged, STEMS: stated, BITS: narrow}
    return pack_graph(live, moved_in, moved_out, notes)


def _add_input(
    graph: TfliteGraph, network: QuantizedNetwork, port: Port, layout: TfliteLayout, into: int
) -> int:
    """Index of the port's tensor, connected to the integer tensor `into`."""
    if port.tensor in network.indices:
        return into
    tensor = network.tensors[port.tensor]
    transposed = is_transposed(tensor.shape, layout)
    if network.io is IoType.INT8 and not transposed:
        return into
    public = _public_tensor(graph, network.io, port, tensor, layout)
    integers = public
    if network.io is not IoType.INT8:
        if transposed:
            name = f"{port.tensor}/nchw"
            integers = graph.activation(name, tensor.shape, tensor.quantization)
        else:
            integers = into
        graph.operator("QUANTIZE", (public,), integers, Options("QuantizeOptions"))
    if transposed:
        transpose(graph, integers, into, TO_NHWC)
    return public


def _add_output(
    graph: TfliteGraph, network: QuantizedNetwork, port: Port, layout: TfliteLayout, source: int
) -> int:
    """Index of the port's tensor, filled from the integer tensor `source`."""
    if port.tensor in network.indices:
        return source
    tensor = network.tensors[port.tensor]
    transposed = is_transposed(tensor.shape, layout)
    if network.io is IoType.INT8 and not transposed:
        return source
    public = _public_tensor(graph, network.io, port, tensor, layout)
    if port.tail is not None:
        _add_tail(graph, port.tail, source, public, transposed)
        return public
    if transposed:
        name = f"{port.tensor}/nchw"
        turned = public
        if network.io is not IoType.INT8:
            turned = graph.activation(name, tensor.shape, tensor.quantization)
        transpose(graph, source, turned, TO_NCHW)
        source = turned
    match network.io:
        case IoType.FLOAT:
            graph.operator("DEQUANTIZE", (source,), public, Options("DequantizeOptions"))
        case IoType.UINT8:
            graph.operator("QUANTIZE", (source,), public, Options("QuantizeOptions"))
        case IoType.INT8:
            pass
    return public


def _add_tail(graph: TfliteGraph, tail: Tail, source: int, public: int, transposed: bool) -> None:
    """Fill a float port with a tail of the integers, along the file's last axis."""
    name, shape = graph.tensors[public].name, graph.tensors[source].shape
    real = graph.activation(f"{name}/real", shape, None, np.float32)
    graph.operator("DEQUANTIZE", (source,), real, Options("DequantizeOptions"))
    result = public
    if transposed:
        result = graph.activation(f"{name}/nhwc", shape, None, np.float32)
    match tail:
        case Tail.SOFTMAX:
            options = Options("SoftmaxOptions", {"beta": 1.0})
            graph.operator("SOFTMAX", (real,), result, options)
        case Tail.LOG_SOFTMAX:
            graph.operator("LOG_SOFTMAX", (real,), result, Options("LogSoftmaxOptions"))
        case _:
            assert_never(tail)
    if transposed:
        transpose(graph, result, public, TO_NCHW)


def _public_tensor(
    graph: TfliteGraph, io: IoType, port: Port, tensor: ActivationTensor, layout: TfliteLayout
) -> int:
    shape = port_shape(tensor.shape, layout)
    match io:
        case IoType.FLOAT:
            return graph.activation(port.name, shape, None, np.float32)
        case IoType.INT8:
            return graph.activation(port.name, shape, tensor.quantization)
        case IoType.UINT8:
            zero_point = tensor.quantization.zero_point + UINT8_SHIFT
            shifted = Quantization(tensor.quantization.scale, zero_point)
            return graph.activation(port.name, shape, shifted, np.uint8)
