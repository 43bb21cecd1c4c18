"""Writes an integer network as ONNX in QDQ form, such that ONNX Runtime keeps no float operator.

    operator           between DequantizeLinear and QuantizeLinear   kernel in ORT
    Conv               Conv                                          QLinearConv
                       a stem: after SpaceToDepth, see spec.stem
    Linear             Gemm, transB = 1                              QGemm
                       their weights: int8, or as onnx_carriers has them
    Add, Mul           Add, Mul                                      QLinearAdd, QLinearMul
    Lookup             Sigmoid; Tanh, Elu, Gelu, Exp, Mish, ...      QLinearSigmoid; in float
                       Mish, Softplus, ...: Gather of a table by the uint8 integers
    GlobalAveragePool  GlobalAveragePool                             QLinearGlobalAveragePool
    LeakyRelu          LeakyRelu, alpha = slope/256 less 2^-18        QLinearLeakyRelu
    Sub                Add of the right side's mirror image          QLinearAdd
    Embedding          Gather of the uint8 table by the port itself: exact by definition
    ArgMax             ArgMax of the uint8 integers: exact by definition

    Maximum, Minimum, MaxPool, Flatten, Clamp, Concat, Slice, Gather, Repeat (Resize), DepthToSpace,
    SpaceToDepth, Pad, Reshape:
    the ONNX operator on the uint8 tensors themselves, exact by definition
    Rearrange, Island: see onnx_regions

A float or int8 port is a QuantizeLinear or DequantizeLinear (int8: both) at the border of the
uint8 interior; (q - z) * s divided by s rounds back to q - z for every q.
Source: ONNX operator specification, opset 13; the fused forms are those of ORT's qdq_selectors.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploykit.emit.onnx_carriers import opset_of_weights
from deploykit.emit.onnx_format import (
    IR_VERSION,
    IR_WITH_GELU,
    IR_WITH_NOT,
    OPSET,
    OPSET_WITH_GELU,
    OPSET_WITH_NOT,
    PRODUCER,
    RUNTIME_KEY,
    STEM_KEY,
    onnx_alpha,
    rows_symbol,
)
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.emit.onnx_moves import window_attributes, write_moving
from deploykit.emit.onnx_regions import opset_of, write_island
from deploykit.errors import GraphError
from deploykit.spec.arrays import Float32Array
from deploykit.spec.carriers import Version
from deploykit.spec.functions import WITH_PARAMETER, called_table, table
from deploykit.spec.oldest import oldest_onnxruntime
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Conv,
    Embedding,
    Function,
    GlobalAveragePool,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Mul,
    Operator,
    Rearrange,
    Sub,
)
from deploykit.spec.quantized import (
    Batch,
    IoType,
    Port,
    QuantizedNetwork,
    Tail,
    as_uint8,
    tail_axis,
)
from deploykit.spec.stem import Runtime, stems_as_blocks

PORT_TYPE = {
    IoType.FLOAT: TensorProto.FLOAT,
    IoType.INT8: TensorProto.INT8,
    IoType.UINT8: TensorProto.UINT8,
}

FUNCTION_NODES: Mapping[Function, tuple[str, Mapping[str, object]]] = {
    Function.SIGMOID: ("Sigmoid", {}),
    Function.TANH: ("Tanh", {}),
    Function.ELU: ("Elu", {}),
    Function.GELU: ("Gelu", {}),
    Function.GELU_TANH: ("Gelu", {"approximate": "tanh"}),
    Function.EXP: ("Exp", {}),
    Function.ERF: ("Erf", {}),
    Function.SOFTSIGN: ("Softsign", {}),
}


TABULATED = frozenset({Function.MISH, Function.SOFTPLUS, *WITH_PARAMETER})
"""Of which a table is faster than ORT's float operator: 1.5 against 2.3 to 6.3 ms for 200,704."""

ARG_MAX_GIVES = "int64"

TAIL_NODES: Mapping[Tail, str] = {Tail.SOFTMAX: "Softmax", Tail.LOG_SOFTMAX: "LogSoftmax"}


def write_onnx(network: QuantizedNetwork) -> bytes:
    """The ONNX file of an integer network; the same network always gives the same bytes."""
    network, stems = stems_as_blocks(network, Runtime.ONNXRUNTIME)
    graph = OnnxGraph(network)
    graph.metadata.update({STEM_KEY + graph.integer(name): text for name, text in stems.items()})
    for port in network.inputs:
        if port.tensor not in network.indices:
            _write_input(port, network.io, graph)
    for operator in network.operators:
        _write_operator(operator, graph, network)
    for port in network.outputs:
        if port.tensor not in network.indices:
            _write_output(port, network.io, graph)
    model = _model(network, graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(
            f"The integer network does not make a legal ONNX graph: {error}; "
            "check the shapes and attributes of the operator named there."
        ) from error
    return bytes(model.SerializeToString(deterministic=True))


def _oldest(network: QuantizedNetwork) -> Version:
    """The oldest ONNX Runtime that loads the file; GraphError where an older one has to."""
    found, asked = oldest_onnxruntime(network), network.min_ort
    if asked is not None and asked < found.version:
        raise GraphError(
            f"{found.operator} needs ONNX Runtime {found.version}, which has to load the file from "
            f"{asked} on; give --min-ort {found.version}, or leave it out."
        )
    return found.version


def _write_operator(operator: Operator, graph: OnnxGraph, network: QuantizedNetwork) -> None:
    name = operator.name
    match operator:
        case Conv():
            inputs = [
                graph.dequantize(operator.input, name),
                graph.weight(operator.weight),
                graph.bias(name, operator.bias, _bias_scale(operator, graph)),
            ]
            attributes = {**window_attributes(operator.window), "group": operator.groups}
            attributes["dilations"] = list(operator.window.dilations)
            _write_real("Conv", inputs, operator.output, name, graph, attributes)
        case Linear():
            inputs = [
                graph.dequantize(operator.input, name),
                graph.weight(operator.weight),
                graph.bias(name, operator.bias, _bias_scale(operator, graph)),
            ]
            _write_real("Gemm", inputs, operator.output, name, graph, {"transB": 1})
        case Add() | Mul():
            inputs = [graph.dequantize(read, name) for read in (operator.left, operator.right)]
            _write_real(type(operator).__name__, inputs, operator.output, name, graph)
        case Sub():
            inputs = [graph.dequantize(operator.left, name), graph.mirrored(operator.right, name)]
            _write_real("Add", inputs, operator.output, name, graph)
        case LeakyRelu():
            graph.require_equal(operator.input, operator.output, name)
            inputs, alpha = [graph.dequantize(operator.input, name)], onnx_alpha(operator.slope)
            _write_real("LeakyRelu", inputs, operator.output, name, graph, {"alpha": alpha})
        case Lookup() if operator.function in TABULATED:
            _write_table(operator, graph)
        case Lookup():
            inputs = [graph.dequantize(operator.input, name)]
            op_type, options = FUNCTION_NODES[operator.function]
            _write_real(op_type, inputs, operator.output, name, graph, options)
        case GlobalAveragePool():
            inputs = [graph.dequantize(operator.input, name)]
            _write_real("GlobalAveragePool", inputs, operator.output, name, graph)
        case Embedding():
            inputs = [graph.table(operator.table), operator.input]
            graph.node("Gather", inputs, graph.integer(operator.output), name, {"axis": 0})
        case ArgMax():
            _write_arg_max(operator, graph, network)
        case Island():
            write_island(operator, graph)
        case _:
            write_moving(operator, graph)


def _write_arg_max(operator: ArgMax, graph: OnnxGraph, network: QuantizedNetwork) -> None:
    """On the integers themselves, as int64; a Cast where the port is int32."""
    held, name = network.indices[operator.output], operator.name
    kept = len(held.shape) == len(graph.tensor(operator.input).shape)
    attributes = {"axis": operator.axis, "keepdims": int(kept)}
    narrow = held.dtype != ARG_MAX_GIVES
    found = graph.fresh(f"{operator.output}.{ARG_MAX_GIVES}") if narrow else operator.output
    graph.node("ArgMax", [graph.integer(operator.input)], found, name, attributes)
    if narrow:
        kind = {"to": helper.np_dtype_to_tensor_dtype(np.dtype(held.dtype))}
        graph.helper("Cast", [found], operator.output, f"{name}.cast", kind)


def _write_table(operator: Lookup, graph: OnnxGraph) -> None:
    """The function's 256 integers, taken by those of the input, which are uint8."""
    source, into = graph.tensor(operator.input), graph.tensor(operator.output)
    function, parameter = operator.function, operator.parameter
    entries = table(function, source.quantization, into.quantization, parameter)
    called = f"{operator.name}/{called_table(function, parameter)}"
    held = graph.initializer(called, as_uint8(entries))
    places = graph.places(operator.input, operator.name)
    name, output = operator.name, graph.integer(operator.output)
    graph.node("Gather", [held, places], output, name, {"axis": 0})


def _write_real(
    op_type: str,
    inputs: list[str],
    output: str,
    name: str,
    graph: OnnxGraph,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """An operator on real values, and the QuantizeLinear that ORT fuses it with."""
    real = graph.node(op_type, inputs, graph.real(output), name, attributes)
    graph.quantize(real, output)


def _bias_scale(operator: Conv | Linear, graph: OnnxGraph) -> Float32Array:
    """sx * sw per output channel, the product in float32."""
    source = np.float32(graph.tensor(operator.input).quantization.scale)
    return np.asarray(source * operator.weight.scale.astype(np.float32), dtype=np.float32)


def _write_input(port: Port, io: IoType, graph: OnnxGraph) -> None:
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


def _write_output(port: Port, io: IoType, graph: OnnxGraph) -> None:
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


def _file_shape(shape: tuple[int, ...], batch: Batch) -> tuple[int | str, ...]:
    return shape if batch is Batch.FIXED else (rows_symbol(shape[0]), *shape[1:])


def _model(network: QuantizedNetwork, graph: OnnxGraph) -> onnx.ModelProto:
    """The nodes as a model, with the shape of every integer tensor."""
    annotations = graph.annotations()

    def port_info(port: Port) -> onnx.ValueInfoProto:
        shape = _file_shape(network.shape(port.tensor), network.batch)
        kind = PORT_TYPE[network.io]
        if port.tensor in network.indices:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(network.indices[port.tensor].dtype))
        return helper.make_tensor_value_info(port.name, kind, shape)

    inputs = [port_info(port) for port in network.inputs]
    outputs = [port_info(port) for port in network.outputs]
    public = {info.name for info in (*inputs, *outputs)}
    inside = [
        helper.make_tensor_value_info(
            graph.integer(name), TensorProto.UINT8, _file_shape(tensor.shape, network.batch)
        )
        for name, tensor in network.tensors.items()
        if graph.integer(name) not in public
    ]
    made = helper.make_graph(
        graph.nodes, PRODUCER, inputs, outputs, graph.initializers, value_info=inside
    )
    made.quantization_annotation.extend(annotations)
    opset, ir_version = OPSET, IR_VERSION
    if any(node.op_type == "BitwiseNot" for node in graph.nodes):
        opset, ir_version = OPSET_WITH_NOT, IR_WITH_NOT
    if any(node.op_type == "Gelu" for node in graph.nodes):
        opset, ir_version = OPSET_WITH_GELU, IR_WITH_GELU
    regions = [one for one in network.operators if isinstance(one, Island | Rearrange)]
    needed = max(opset_of(regions), opset_of_weights(graph.initializers))
    if needed > opset:
        opset = needed
        ir_version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model = helper.make_model(
        made,
        producer_name=PRODUCER,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset)],
    )
    graph.metadata[RUNTIME_KEY] = str(_oldest(network))
    helper.set_model_props(model, dict(sorted(graph.metadata.items())))
    return model
