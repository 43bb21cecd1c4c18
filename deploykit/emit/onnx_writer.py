"""Writes an integer network as ONNX in QDQ form, such that ONNX Runtime keeps no float operator.

    operator           between DequantizeLinear and QuantizeLinear   kernel in ORT
    Conv               Conv                                          QLinearConv
    Linear             Gemm, transB = 1                              QGemm
    Add, Mul           Add, Mul                                      QLinearAdd, QLinearMul
    Lookup             Sigmoid; Tanh, Elu, Gelu                      QLinearSigmoid; in float
    GlobalAveragePool  GlobalAveragePool                             QLinearGlobalAveragePool

    MaxPool, Flatten, Clamp, Concat, Slice, Gather, Repeat (Resize), DepthToSpace, SpaceToDepth: the
    ONNX operator on the uint8 tensors themselves, exact by definition
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

from deploykit.emit.onnx_format import (
    BATCH_SYMBOL,
    IR_VERSION,
    IR_WITH_GELU,
    OPSET,
    OPSET_WITH_GELU,
    PRODUCER,
)
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.emit.onnx_regions import opset_of, write_island, write_rearrange
from deploykit.errors import GraphError
from deploykit.spec.arrays import Float32Array
from deploykit.spec.operators import (
    Add,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Flatten,
    Function,
    Gather,
    GlobalAveragePool,
    Island,
    Linear,
    Lookup,
    MaxPool,
    Moving,
    Mul,
    Operator,
    Rearrange,
    Repeat,
    Slice,
    SpaceToDepth,
    Window,
    operator_inputs,
)
from deploykit.spec.quantized import UINT8_SHIFT, Batch, IoType, Port, QuantizedNetwork, Tail

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
}
NEAREST: Mapping[str, object] = {
    "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
}  # fmt: skip


def write_onnx(network: QuantizedNetwork) -> bytes:
    """The ONNX file of an integer network; the same network always gives the same bytes."""
    graph = OnnxGraph(network)
    for port in network.inputs:
        _write_input(port, network.io, graph)
    for operator in network.operators:
        _write_operator(operator, graph)
    for port in network.outputs:
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


def _write_operator(operator: Operator, graph: OnnxGraph) -> None:
    name = operator.name
    match operator:
        case Conv():
            inputs = [
                graph.dequantize(operator.input, name),
                graph.weight(operator.weight),
                graph.bias(name, operator.bias, _bias_scale(operator, graph)),
            ]
            attributes = {**_window_attributes(operator.window), "group": operator.groups}
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
        case Lookup():
            inputs = [graph.dequantize(operator.input, name)]
            op_type, options = FUNCTION_NODES[operator.function]
            _write_real(op_type, inputs, operator.output, name, graph, options)
        case GlobalAveragePool():
            inputs = [graph.dequantize(operator.input, name)]
            _write_real("GlobalAveragePool", inputs, operator.output, name, graph)
        case Island():
            write_island(operator, graph)
        case _:
            _write_moving(operator, graph)


def _write_moving(operator: Moving, graph: OnnxGraph) -> None:
    name = operator.name
    match operator:
        case MaxPool():
            attributes = _window_attributes(operator.window)
            attributes["dilations"] = list(operator.window.dilations)
            _write_integer("MaxPool", operator, graph, attributes=attributes)
        case Flatten():
            _write_integer("Flatten", operator, graph, attributes={"axis": 1})
        case Clamp():
            bounds = [
                graph.initializer(f"{name}.{side}", np.array(bound + UINT8_SHIFT, np.uint8))
                for side, bound in (("low", operator.low), ("high", operator.high))
            ]
            _write_integer("Clip", operator, graph, bounds)
        case Concat():
            _write_integer("Concat", operator, graph, attributes={"axis": operator.axis})
        case Slice():
            spans = (
                ("start", operator.start), ("stop", operator.stop), ("axis", operator.axis),
                ("step", operator.step),
            )  # fmt: skip
            places = [
                graph.initializer(f"{name}.{what}", np.array([place], np.int64))
                for what, place in spans
            ]
            _write_integer("Slice", operator, graph, places)
        case Gather():
            indices = graph.initializer(f"{name}.indices", np.array(operator.indices, np.int64))
            _write_integer("Gather", operator, graph, [indices], {"axis": 1})
        case Repeat():
            scales = np.array([1, 1, operator.rows, operator.columns], np.float32)
            constants = ["", graph.initializer(f"{name}.scales", scales)]
            _write_integer("Resize", operator, graph, constants, NEAREST)
        case DepthToSpace():
            attributes = {"blocksize": operator.block, "mode": "DCR"}
            _write_integer("DepthToSpace", operator, graph, attributes=attributes)
        case SpaceToDepth():
            attributes = {"blocksize": operator.block}
            _write_integer("SpaceToDepth", operator, graph, attributes=attributes)
        case Rearrange():
            _require_shared(operator, graph)
            write_rearrange(operator, graph)
        case _:
            assert_never(operator)


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


def _write_integer(
    op_type: str,
    operator: Moving,
    graph: OnnxGraph,
    constants: list[str] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """An operator that moves or compares integers; input and output share one quantization."""
    _require_shared(operator, graph)
    inputs = [*map(graph.integer, operator_inputs(operator)), *(constants or [])]
    graph.node(op_type, inputs, graph.integer(operator.output), operator.name, attributes)


def _require_shared(operator: Moving, graph: OnnxGraph) -> None:
    into = graph.tensor(operator.output)
    for source in map(graph.tensor, operator_inputs(operator)):
        if source.quantization != into.quantization:
            raise GraphError(
                f"{operator.name}: {source.name} and {into.name} must share one quantization, but "
                f"have {source.quantization} and {into.quantization}; plan them together."
            )


def _bias_scale(operator: Conv | Linear, graph: OnnxGraph) -> Float32Array:
    """sx * sw per output channel, the product in float32."""
    source = np.float32(graph.tensor(operator.input).quantization.scale)
    return np.asarray(source * operator.weight.scale.astype(np.float32), dtype=np.float32)


def _window_attributes(window: Window) -> dict[str, object]:
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "pads": list(window.pads),
    }


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
            if port.tail is Tail.SOFTMAX:
                graph.helper("Softmax", [real], port.name, f"{port.name}.softmax", {"axis": -1})
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
    return shape if batch is Batch.FIXED else (BATCH_SYMBOL, *shape[1:])


def _model(network: QuantizedNetwork, graph: OnnxGraph) -> onnx.ModelProto:
    """The nodes as a model, with the shape of every integer tensor."""
    annotations = graph.annotations()

    def port_info(port: Port) -> onnx.ValueInfoProto:
        shape = _file_shape(graph.tensor(port.tensor).shape, network.batch)
        return helper.make_tensor_value_info(port.name, PORT_TYPE[network.io], shape)

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
    if any(node.op_type == "Gelu" for node in graph.nodes):
        opset, ir_version = OPSET_WITH_GELU, IR_WITH_GELU
    regions = [one for one in network.operators if isinstance(one, Island | Rearrange)]
    if opset_of(regions) > opset:
        opset = opset_of(regions)
        ir_version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model = helper.make_model(
        made,
        producer_name=PRODUCER,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset)],
    )
    helper.set_model_props(model, dict(sorted(graph.metadata.items())))
    return model
