"""What a float .tflite file computes and holds, against ONNX Runtime on the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.tflite_flatbuffer import load_schema
from deploykit.emit.tflite_float import write_float_tflite
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network, static_shape

TOLERANCE = 1e-5
"""Of the largest output, between two runtimes that sum in different orders."""

FUSED = {0: "", 1: "+relu", 2: "+relu_n1_to_1", 3: "+relu6"}


def node_network(
    nodes: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, AnyArray] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
) -> Network:
    """A network from ONNX's text form of its nodes; shapes are inferred."""
    graph = helper.make_graph(
        [onnx.parser.parse_node(node) for node in nodes],
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return Network(ir.from_proto(inferred), {})


def channels_last(values: Float32Array) -> Float32Array:
    """An image as the file has it; other ranks are the same in both."""
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if values.ndim == 4 else values


def difference(network: Network, data: bytes | None = None) -> float:
    """Largest difference between the two runtimes, relative to each output's largest value."""
    data = write_float_tflite(network) if data is None else data
    generator = np.random.default_rng(3)
    inputs = {
        str(port.name): generator.normal(0, 1, static_shape(port)).astype(np.float32)
        for port in network.model.graph.inputs
        if port.name not in network.model.graph.initializers
    }
    expected = ort.run(ir.to_proto(network.model).SerializeToString(), inputs)
    laid = {name: channels_last(values) for name, values in inputs.items()}
    given = litert.run(data, laid)
    assert given.keys() == expected.keys()
    largest = 0.0
    for name, values in expected.items():
        wanted = channels_last(values)
        assert given[name].shape == wanted.shape
        assert np.isfinite(given[name]).all()
        difference = np.abs(given[name] - wanted).max() / max(np.abs(wanted).max(), 1e-30)
        largest = max(largest, float(difference))
    return largest


def operators(data: bytes) -> list[str]:
    """The file's operators in order, each with the activation that it fuses."""
    schema = load_schema()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.ModelT.InitFromPackedBuf(bytearray(data))
    (subgraph,) = model.subgraphs
    found = []
    for operator in subgraph.operators:
        code = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        found.append(code + FUSED[fused])
    return found


def outside_xnnpack(data: bytes) -> list[str]:
    """The file's operators that XNNPACK does not take, sorted.

    The interpreter lists every operator of the file and one DELEGATE for each part that XNNPACK
    took: what lies between a DELEGATE's outputs and its inputs is inside it.
    """
    nodes = litert._interpreter(data)._get_ops_details()
    makers = {
        int(index): node
        for node in nodes
        if node["op_name"] != litert.DELEGATE
        for index in node["outputs"]
    }
    inside: set[int] = set()
    for part in (node for node in nodes if node["op_name"] == litert.DELEGATE):
        border = {int(index) for index in part["inputs"]}
        reached = [int(index) for index in part["outputs"]]
        while reached:
            index = reached.pop()
            if index not in border and index in makers and makers[index]["index"] not in inside:
                inside.add(makers[index]["index"])
                reached.extend(int(source) for source in makers[index]["inputs"])
    return sorted(node["op_name"] for node in makers.values() if node["index"] not in inside)
