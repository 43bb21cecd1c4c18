"""The float file computes what the float network does, and XNNPACK takes the whole of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.emit.tflite_file import FileOperator, parse_tflite
from deploykit.emit.tflite_float import write_float_tflite
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.reference.float import evaluate
from deploykit.runtime import litert
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from tests.emit.float_networks import MODULES, float_network

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")

FUSED_SLOTS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "FULLY_CONNECTED": 0,
    "ADD": 0,
    "MAX_POOL_2D": 5,
}
FUSED_NAMES = {0: "", 1: "+relu", 3: "+relu6"}

GAPS = {"pool of values around zero": "XNNPACK of LiteRT 2.3.0 takes no PADV2"}

network_of = cache(float_network)


def text_network(
    nodes: str, constants: str = "", image: str = "float[1,2,6,6]", opset: int = 20
) -> Network:
    """A network from ONNX text with the input x and the output y."""
    given = f"<{constants}>" if constants else ""
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
        tiny ({image} x) => (float[1,2,6,6] y) {given} {{ {nodes} }}"""
    return Network(ir.from_onnx_text(text), {})


def channels_last(values: Float32Array) -> Float32Array:
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if values.ndim == 4 else values


def difference(network: Network, data: bytes) -> float:
    """Largest difference between file and reference, relative to the largest output."""
    (port,), (output,) = network.model.graph.inputs, network.model.graph.outputs
    assert port.shape is not None
    batch, *rest = port.shape.numpy()
    inputs = np.random.default_rng(3).standard_normal((4 * batch, *rest)).astype(np.float32)
    expected = channels_last(evaluate(network, inputs)[str(output.name)])
    outputs = litert.run(data, {str(port.name): channels_last(inputs)})[str(output.name)]
    assert outputs.shape == expected.shape
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def operators(data: bytes) -> list[str]:
    """Codes in order, each with the activation that it fuses."""
    return [_described(operator) for operator in parse_tflite(data).operators]


def _described(operator: FileOperator) -> str:
    slot = FUSED_SLOTS.get(operator.code)
    return operator.code + (FUSED_NAMES[operator.option(slot, "<b")] if slot is not None else "")


@pytest.mark.parametrize("name", MODULES)
def test_the_file_computes_what_the_network_does(name: str) -> None:
    network = network_of(name)
    data = write_float_tflite(network)
    assert difference(network, data) < 1e-5


@pytest.mark.parametrize("name", sorted(MODULES.keys() - GAPS.keys()))
def test_xnnpack_takes_the_whole_file(name: str) -> None:
    assert litert.partitions(write_float_tflite(network_of(name))) == 1


def test_the_same_network_gives_the_same_bytes() -> None:
    network = network_of("residual")
    assert write_float_tflite(network) == write_float_tflite(float_network("residual"))


def test_a_network_read_from_a_file_gives_the_same_bytes(tmp_path: Path) -> None:
    network, path = network_of("lenet"), tmp_path / "model.float.onnx"
    ir.save(network.model, path)
    read = Network(ir.load(path), {})
    assert write_float_tflite(read) == write_float_tflite(network)


def test_activations_are_fused_and_columns_permuted() -> None:
    assert operators(write_float_tflite(network_of("lenet"))) == [
        "CONV_2D+relu",
        "MAX_POOL_2D",
        "CONV_2D+relu",
        "MAX_POOL_2D",
        "RESHAPE",
        "FULLY_CONNECTED+relu",
        "FULLY_CONNECTED",
    ]


def test_residual_sums_fuse_their_activation() -> None:
    assert operators(write_float_tflite(network_of("residual"))) == [
        "CONV_2D+relu",
        "CONV_2D+relu",
        "CONV_2D",
        "ADD+relu",
        "CONV_2D",
        "PAD",
        "CONV_2D+relu",
        "CONV_2D",
        "ADD+relu",
        "MEAN",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]


def test_depthwise_convolutions_are_depthwise() -> None:
    codes = operators(write_float_tflite(network_of("depthwise separable")))
    assert codes.count("DEPTHWISE_CONV_2D+relu6") == 2


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("pool of never negative values", ["CONV_2D+relu", "PAD", "MAX_POOL_2D"]),
        ("pool before its activation", ["CONV_2D", "PAD", "MAX_POOL_2D+relu6"]),
        ("pool of values around zero", ["CONV_2D", "PADV2", "MAX_POOL_2D", "CONV_2D"]),
    ],
)
def test_pads_of_a_pool_hold_zero_where_that_never_wins(name: str, codes: list[str]) -> None:
    assert operators(write_float_tflite(network_of(name))) == codes


def test_other_bounds_are_maximum_and_minimum() -> None:
    codes = operators(write_float_tflite(network_of("other bounds")))
    assert codes == ["CONV_2D", "MAXIMUM", "MINIMUM", "CONV_2D"]


def test_bounds_may_be_attributes_as_before_opset_11() -> None:
    network = text_network("y = Clip <min = -0.5, max = 0.25> (x)", opset=9)
    data = write_float_tflite(network)
    assert operators(data) == ["MAXIMUM", "MINIMUM"]
    assert difference(network, data) == 0.0


WEIGHT = "float[2,2,1,1] w = {1, 2, 3, 4}"


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ("[squash] y = Sigmoid (x)", "", "Sigmoid 'squash': .* supported are Add, .*replace it"),
        ("y = Sigmoid (x)", "", "Sigmoid 'y'"),
        ("y = Add (x, b)", "float[1] b = {1}", r"Add 'y': its input 1 \('b'\) is no activation"),
        ("y = Clip (x)", "", "Clip 'y': it has no bounds; remove it"),
        ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', WEIGHT, "Conv 'y': .*SAME_UPPER; normal"),
        ("y = Conv (x, x)", "", r"Conv 'y': its input 1 \('x'\) is computed"),
        (
            "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
            "",
            r"AveragePool 'y': .*pads \(1, 1, 1, 1\)\); use an average pool without padding",
        ),
        (
            "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 1, 1]> (x)",
            "",
            "y: TFLite has no max pooling with dilations",
        ),
        ("y = Flatten <axis = 2> (x)", "", "Flatten 'y': it flattens from axis 2"),
    ],
)
def test_what_is_not_supported_is_named(nodes: str, constants: str, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=message):
        write_float_tflite(text_network(nodes, constants))


def test_a_gemm_that_is_not_canonical_is_named() -> None:
    network = text_network("y = Gemm (x, w)", "float[2,2] w = {1, 2, 3, 4}", "float[1,2]")
    with pytest.raises(UnsupportedOperatorError, match=r"Gemm 'y': .*\(0, 0\).*normalize"):
        write_float_tflite(network)


def test_a_dynamic_batch_is_named() -> None:
    with pytest.raises(GraphError, match="'x' has no fixed shape"):
        write_float_tflite(text_network("y = Relu (x)", image="float[N,2,6,6]"))


def test_an_integer_input_is_named() -> None:
    with pytest.raises(GraphError, match="'x' has element type UINT8"):
        write_float_tflite(text_network("y = Relu (x)", image="uint8[1,2,6,6]"))
