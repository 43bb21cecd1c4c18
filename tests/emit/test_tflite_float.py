"""The float file computes what the float network does, and XNNPACK takes the whole of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.runtime import litert
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.emit.float_checking import TOLERANCE, difference, node_network, operators
from tests.emit.float_networks import MODULES, float_network

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")

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


@pytest.mark.parametrize("name", MODULES)
def test_the_file_computes_what_the_network_does(name: str) -> None:
    network = network_of(name)
    data = write_float_tflite(network)
    assert difference(network, data) < TOLERANCE


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
        ("[squash] y = Sinh (x)", "", "Sinh 'squash': .* supported are Abs, Add, .*replace it"),
        ("y = Sinh (x)", "", "Sinh 'y'"),
        ("y = Add (x, z)", "", r"Add 'y': its input 1 \('z'\) is no activation"),
        ("y = Clip (x)", "", "Clip 'y': it has no bounds; remove it"),
        ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', WEIGHT, "Conv 'y': .*SAME_UPPER; normal"),
        ("y = Conv (x, x)", "", r"Conv 'y': its input 1 \('x'\) is computed"),
        (
            "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 1, 1]> (x)",
            "",
            "y: TFLite has no max pooling with dilations",
        ),
        ("y, i = MaxPool <kernel_shape = [1, 1]> (x)", "", "MaxPool 'y': it also gives indices"),
        ("y = ConvTranspose <group = 2> (x, w)", WEIGHT, "'y': .*by groups; use one group"),
        ("y = ConvTranspose <dilations = [2, 2]> (x, w)", WEIGHT, "'y': its kernel has holes"),
        ("y = Elu <alpha = 0.5> (x)", "", "Elu 'y': its alpha is 0.5"),
        ("y = Erf (x)", "", "Erf 'y': this operator has no float TFLite form"),
        ("y = MatMul (x, v)", "float[6] v = {1, 1, 1, 1, 1, 1}", r"ranks \[1, 4\]"),
        ("y = Gather <axis = 1> (x, i)", "int64[1,2] i = {0, 1}", "Gather 'y': .*several axes"),
    ],
)
def test_what_is_not_supported_is_named(nodes: str, constants: str, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=message):
        write_float_tflite(text_network(nodes, constants))


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            'y = Resize <mode = "cubic"> (x, , s)',
            {"s": np.array([1, 1, 2, 2], dtype=np.float32)},
            "Resize 'y': its mode is 'cubic'",
        ),
        (
            'y = Resize <mode = "linear"> (x, , s)',
            {"s": np.array([1, 1, 1.3, 1], dtype=np.float32)},
            "Resize 'y': TFLite does not sample at its coordinates .*whole scale",
        ),
        (
            "y = Slice (x, s, e, a, t)",
            {name: np.array([value]) for name, value in zip("seat", (5, 0, 2, -1), strict=True)},
            "Slice 'y': its step is -1",
        ),
        (
            'y = Pad <mode = "edge"> (x, p)',
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
            "Pad 'y': its mode is 'edge'; use constant or reflect",
        ),
        (
            "y = ConvTranspose <strides = [2, 2], output_padding = [1, 1]> (x, w)",
            {"w": np.ones((2, 2, 1, 1), dtype=np.float32)},
            "'y': its output_padding goes beyond its pads",
        ),
    ],
)
def test_forms_that_are_not_supported_are_named(
    nodes: str, constants: dict[str, AnyArray], message: str
) -> None:
    network = node_network((nodes,), {"x": (1, 2, 6, 6)}, constants)
    with pytest.raises(UnsupportedOperatorError, match=message):
        write_float_tflite(network)


def test_a_cast_to_another_type_is_named() -> None:
    network = node_network(("z = Cast <to = 10> (x)", "y = Cast <to = 1> (z)"), {"x": (2, 6)})
    with pytest.raises(UnsupportedOperatorError, match="Cast 'z': it casts to FLOAT16"):
        write_float_tflite(network)


def test_a_softmax_over_several_axes_is_named() -> None:
    network = text_network("y = Softmax (x)", opset=11)
    with pytest.raises(UnsupportedOperatorError, match="one softmax over all axes from 1 on"):
        write_float_tflite(network)


def test_a_deviation_that_is_read_is_named() -> None:
    nodes = ("n, m = LayerNormalization (x, g)", "y = Add (n, m)")
    network = node_network(nodes, {"x": (2, 6)}, {"g": np.ones(6, dtype=np.float32)})
    with pytest.raises(UnsupportedOperatorError, match="its mean or deviation is read"):
        write_float_tflite(network)


def test_a_shape_that_is_not_the_operators_is_named() -> None:
    nodes = "z = Gather <axis = 1> (x, i) y = Relu (z)"
    network = text_network(nodes, "int64[1] i = {0}")
    network.model.graph[0].outputs[0].shape = ir.Shape((1, 6, 6))
    with pytest.raises(GraphError, match="'z' is stated to have the shape"):
        write_float_tflite(network)


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
