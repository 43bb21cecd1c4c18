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

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploykit.emit.onnx_carriers import opset_of_weights
from deploykit.emit.onnx_format import (
    IR_VERSION,
    OPSET,
    PRODUCER,
    RUNTIME_KEY,
    STEM_KEY,
    onnx_alpha,
)
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.emit.onnx_moves import window_attributes, write_moving
from deploykit.emit.onnx_ports import file_shape, port_info, write_input, write_output
from deploykit.emit.onnx_regions import opset_of, write_island
from deploykit.errors import GraphError
from deploykit.spec.arrays import Float32Array
from deploykit.spec.carriers import Version
from deploykit.spec.functions import WITH_PARAMETER, called_table, table
from deploykit.spec.oldest import oldest_onnxruntime
from deploykit.spec.operator_sets import first_ir_version, first_opset
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
    QuantizedNetwork,
    as_uint8,
)
from deploykit.spec.stem import Runtime, stems_as_blocks

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


def write_onnx(network: QuantizedNetwork) -> bytes:
    """The ONNX file of an integer network; the same network always gives the same bytes."""
    network, stems = stems_as_blocks(network, Runtime.ONNXRUNTIME)
    graph = OnnxGraph(network)
    graph.metadata.update({STEM_KEY + graph.integer(name): text for name, text in stems.items()})
    for port in network.inputs:
        if port.tensor not in network.indices:
            write_input(port, network.io, graph)
    for operator in network.operators:
        _write_operator(operator, graph, network)
    for port in network.outputs:
        if port.tensor not in network.indices:
            write_output(port, network.io, graph)
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


def _model(network: QuantizedNetwork, graph: OnnxGraph) -> onnx.ModelProto:
    """The nodes as a model, with the shape of every integer tensor."""
    annotations = graph.annotations()

    inputs = [port_info(port, network) for port in network.inputs]
    outputs = [port_info(port, network) for port in network.outputs]
    public = {info.name for info in (*inputs, *outputs)}
    inside = [
        helper.make_tensor_value_info(
            graph.integer(name), TensorProto.UINT8, file_shape(tensor.shape, network.batch)
        )
        for name, tensor in network.tensors.items()
        if graph.integer(name) not in public
    ]
    made = helper.make_graph(
        graph.nodes, PRODUCER, inputs, outputs, graph.initializers, value_info=inside
    )
    made.quantization_annotation.extend(annotations)
    regions = [one for one in network.operators if isinstance(one, Island | Rearrange)]
    opset = max(
        OPSET,
        first_opset(node.op_type for node in graph.nodes),
        opset_of(regions),
        opset_of_weights(graph.initializers),
    )
    model = helper.make_model(
        made,
        producer_name=PRODUCER,
        ir_version=max(IR_VERSION, first_ir_version(opset)),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    graph.metadata[RUNTIME_KEY] = str(_oldest(network))
    helper.set_model_props(model, dict(sorted(graph.metadata.items())))
    return model
