"""The written ONNX file: legal, reproducible, fused by ONNX Runtime, and named as promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from deploykit.emit.onnx_writer import write_onnx
from deploykit.errors import GraphError
from deploykit.reference import integer
from deploykit.runtime import ort
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
    Gather,
    GlobalAveragePool,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Operator,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Sub,
)
from deploykit.spec.quantized import IoType, Port, Quantization, QuantizedNetwork
from tests.suite.building import Builder
from tests.suite.cases import CASES, Case, square

KERNELS: dict[type[Operator], frozenset[str]] = {
    Conv: frozenset({"QLinearConv"}),
    Linear: frozenset({"QGemm"}),
    Add: frozenset({"QLinearAdd"}),
    Mul: frozenset({"QLinearMul"}),
    Lookup: frozenset({"QLinearSigmoid", "QuantizeLinear", "Gather"}),  # ORT has no integer Tanh
    GlobalAveragePool: frozenset({"QLinearGlobalAveragePool"}),
    MaxPool: frozenset({"MaxPool"}),
    Flatten: frozenset({"Flatten"}),
    Clamp: frozenset({"Clip"}),
    Concat: frozenset({"Concat"}),
    Slice: frozenset({"Slice", "Split"}),  # ORT joins slices that lie side by side
    Gather: frozenset({"Gather", "Transpose"}),  # of columns, between two Transposes
    Embedding: frozenset({"Gather"}),
    ArgMax: frozenset({"ArgMax", "Cast"}),
    Repeat: frozenset({"Resize"}),
    DepthToSpace: frozenset({"DepthToSpace"}),
    LeakyRelu: frozenset({"QLinearLeakyRelu"}),
    Maximum: frozenset({"Max"}),
    Minimum: frozenset({"Min"}),
    Pad: frozenset({"Pad"}),
    Reshape: frozenset({"Reshape"}),
    SpaceToDepth: frozenset({"SpaceToDepth"}),
    Sub: frozenset({"QLinearAdd"}),
    Rearrange: frozenset({"Reshape", "Squeeze", "Transpose"}),
    # ORT moves what rearranges behind the QuantizeLinear, where it works on bytes.
    Island: frozenset({"QuantizeLinear", "Reshape"}),
}

PORT_TYPES = {
    IoType.FLOAT: TensorProto.FLOAT,
    IoType.INT8: TensorProto.INT8,
    IoType.UINT8: TensorProto.UINT8,
}


def case(name: str) -> Case:
    (found,) = (case for case in CASES if case.name == name)
    return found


def small(io: IoType = IoType.FLOAT) -> QuantizedNetwork:
    build = Builder(np.random.default_rng(5), (1, 4, 6, 6))
    hidden = build.conv(build.input, 6, square(3, pad=1))
    return build.network(build.linear(build.flatten(hidden), 5), io=io)


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnxruntime_runs_every_operator_on_integers(case: Case, io: IoType) -> None:
    network = case.network(io)
    kernels = ort.kernels(write_onnx(network))
    for operator in network.operators:
        assert kernels[operator.output] in KERNELS[type(operator)]


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("name", ["lenet", "residual-downsample", "mobile", "clamp-between"])
def test_the_public_outputs_are_the_reference_integers(name: str, io: IoType) -> None:
    network = case(name).network(io)
    integers = case(name).inputs()["input"]
    (port,) = network.outputs
    expected = integer.run(network, {"input": integers})[port.tensor]
    quantization = network.tensors[port.tensor].quantization
    source = network.tensors["x0"].quantization
    pairs: dict[IoType, tuple[np.ndarray, np.ndarray]] = {
        IoType.FLOAT: (source.dequantize(integers), quantization.dequantize(expected)),
        IoType.INT8: (integers, expected),
        IoType.UINT8: (shifted(integers), shifted(expected)),
    }
    given, wanted = pairs[io]
    found = ort.run(write_onnx(network), {"input": given})
    assert list(found) == ["output"]
    assert found["output"].dtype == wanted.dtype
    np.testing.assert_array_equal(found["output"], wanted)


def shifted(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.int16) + 128).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1e-6, 7.3, 2.0**-7])
@pytest.mark.parametrize("zero_point", [-128, -1, 0, 127])
def test_an_int8_port_is_exact_for_all_its_values(scale: float, zero_point: int) -> None:
    build = Builder(np.random.default_rng(0), (1, 256))
    network = build.network(build.clamp(build.input, -128, 127), io=IoType.INT8)
    quantization = Quantization(float(np.float32(scale)), zero_point)
    tensors = {
        name: replace(tensor, quantization=quantization) for name, tensor in network.tensors.items()
    }
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    found = ort.run(write_onnx(replace(network, tensors=tensors)), {"input": every})["output"]
    np.testing.assert_array_equal(found, every)


@pytest.mark.parametrize("io", list(IoType))
def test_the_same_network_gives_the_same_bytes(io: IoType) -> None:
    assert write_onnx(small(io)) == write_onnx(small(io))


@pytest.mark.parametrize("io", list(IoType))
def test_integer_tensors_and_ports_keep_their_names(io: IoType) -> None:
    model = onnx.load_from_string(write_onnx(small(io)))
    (source,), (sink,) = model.graph.input, model.graph.output
    assert (source.name, sink.name) == ("input", "output")
    assert source.type.tensor_type.elem_type == PORT_TYPES[io]
    assert sink.type.tensor_type.elem_type == PORT_TYPES[io]
    inside = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    expected = {"x1", "x2"} if io is IoType.UINT8 else {"x0", "x1", "x2", "x3"}
    assert inside == dict.fromkeys(expected, TensorProto.UINT8)


def test_a_tensor_that_is_called_like_a_port_makes_way() -> None:
    network = replace(small(), inputs=(Port("x0", "x0"),), outputs=(Port("x3", "x3"),))
    model = onnx.load_from_string(write_onnx(network))
    assert {value.name for value in model.graph.value_info} == {
        "x0_quantized",
        "x1",
        "x2",
        "x3_quantized",
    }


def test_weights_are_int8_and_symmetric_and_biases_int32_on_the_product_scale() -> None:
    network = small()
    conv = network.operators[0]
    assert isinstance(conv, Conv)
    graph = onnx.load_from_string(write_onnx(network)).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    np.testing.assert_array_equal(constants["weight_0"], conv.weight.values)
    assert constants["weight_0"].dtype == np.int8
    assert not constants["weight_0.zero_point"].any()
    assert constants["conv_x1.bias"].dtype == np.int32
    scale = np.float32(network.tensors["x0"].quantization.scale) * conv.weight.scale
    np.testing.assert_array_equal(constants["conv_x1.bias.scale"], scale)


def test_the_file_says_who_wrote_it_and_loads_in_older_runtimes() -> None:
    model = onnx.load_from_string(write_onnx(small()))
    assert model.producer_name == "deploykit"
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]


def test_the_batch_stays_as_it_is_planned() -> None:
    build = Builder(np.random.default_rng(5), (3, 4, 6, 6))
    network = build.network(build.conv(build.input, 6, square(3)))
    model = onnx.load_from_string(write_onnx(network))
    shape = [entry.dim_value for entry in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [3, 4, 6, 6]
    values = np.random.default_rng(1).integers(-128, 128, (6, 4, 6, 6)).astype(np.int8)
    expected = integer.run(network, {"input": values})["x1"]
    real = network.tensors["x0"].quantization.dequantize(values)
    found = ort.run(write_onnx(network), {"input": real})["output"]
    np.testing.assert_array_equal(found, network.tensors["x1"].quantization.dequantize(expected))


def test_a_shared_weight_is_written_once() -> None:
    network = small()
    conv = network.operators[0]
    assert isinstance(conv, Conv)
    again = replace(conv, name="again", output="x4")
    tensors = {**network.tensors, "x4": replace(network.tensors["x1"], name="x4")}
    outputs = (*network.outputs, Port("second", "x4"))
    shared = replace(
        network, tensors=tensors, operators=(*network.operators, again), outputs=outputs
    )
    graph = onnx.load_from_string(write_onnx(shared)).graph
    assert [entry.name for entry in graph.initializer].count("weight_0") == 1
    assert ort.kernels(write_onnx(shared))["x4"] == "QLinearConv"


def test_two_uint8_ports_of_one_tensor_are_refused() -> None:
    network = small(IoType.UINT8)
    twice = replace(network, outputs=(*network.outputs, Port("more", "x3")))
    with pytest.raises(GraphError, match="same uint8 tensor 'x3'"):
        write_onnx(twice)


def test_a_pool_that_changes_the_scale_is_refused() -> None:
    network = case("max-pool").network()
    other = replace(network.tensors["x1"], quantization=Quantization(1.0, 0))
    with pytest.raises(GraphError, match=r"pool_x1: x0 and x1 must share one quantization"):
        write_onnx(replace(network, tensors={**network.tensors, "x1": other}))


def test_a_shape_that_no_operator_gives_is_refused() -> None:
    network = small()
    other = replace(network.tensors["x1"], shape=(1, 6, 5, 5))
    with pytest.raises(GraphError, match="legal ONNX graph"):
        write_onnx(replace(network, tensors={**network.tensors, "x1": other}))


def test_activations_of_sixteen_bits_are_refused() -> None:
    network = small()
    wide = replace(network.tensors["x1"], quantization=Quantization(1.0, 0, 16))
    with pytest.raises(GraphError, match="activations of 16 bits"):
        write_onnx(replace(network, tensors={**network.tensors, "x1": wide}))
