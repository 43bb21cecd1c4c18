"""The written file computes the reference's integers, in the form that the runtime is fast on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from deploykit.emit.tflite_file import parse_tflite
from deploykit.emit.tflite_layout import (
    TfliteLayout,
    from_tflite_layout,
    ports_from_tflite_layout,
    to_tflite_layout,
)
from deploykit.emit.tflite_probe import probe_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import UnsupportedOperatorError
from deploykit.reference.integer import run
from deploykit.runtime import litert
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Window
from deploykit.spec.quantized import ActivationTensor, IoType, Port, Quantization, QuantizedNetwork
from tests.emit.tflite_networks import (
    NetworkBuilder,
    conv_networks,
    every_operator,
    headed_networks,
    plain_cnn,
    random_inputs,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "plain_cnn.tflite.txt"

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")


def assert_equals_reference(
    network: QuantizedNetwork, layout: TfliteLayout = TfliteLayout.NHWC
) -> None:
    """Every integer of every tensor."""
    inputs = random_inputs(network)
    expected = run(network, inputs)
    probe = probe_tflite(write_tflite(network, layout))
    raw = litert.run_probe(probe, to_tflite_layout(network, inputs, layout))
    actual = from_tflite_layout(network, raw, layout)
    assert actual.keys() == expected.keys()
    for name, integers in expected.items():
        np.testing.assert_array_equal(actual[name], integers, err_msg=name)


def describe(data: bytes) -> str:
    """One line per operator: code, inputs with shapes, output with shape."""
    lines = []
    for operator in parse_tflite(data).operators:
        inputs = ", ".join(
            f"{tensor.name} {list(tensor.shape)}" for tensor in operator.inputs if tensor
        )
        result = f"{operator.output.name} {list(operator.output.shape)}"
        lines.append(f"{operator.code}({inputs}) -> {result}")
    return "\n".join(lines) + "\n"


@settings(max_examples=150, deadline=None)
@given(conv_networks())
def test_convolutions_equal_the_reference(network: QuantizedNetwork) -> None:
    assert_equals_reference(network)


@settings(max_examples=100, deadline=None)
@given(headed_networks())
def test_pools_and_heads_equal_the_reference(network: QuantizedNetwork) -> None:
    assert_equals_reference(network)


@pytest.mark.parametrize(("io", "layout"), list(itertools.product(IoType, TfliteLayout)))
def test_every_operator_in_every_io_type_and_layout(io: IoType, layout: TfliteLayout) -> None:
    assert_equals_reference(every_operator(io), layout)


def test_static_batch() -> None:
    assert_equals_reference(every_operator(batch=2))


@pytest.mark.parametrize("layout", TfliteLayout)
def test_outputs_have_the_layout_that_was_asked_for(layout: TfliteLayout) -> None:
    network = every_operator()
    inputs = random_inputs(network)
    outputs = litert.run(write_tflite(network, layout), to_tflite_layout(network, inputs, layout))
    expected = run(network, inputs)
    turned = ports_from_tflite_layout(network, outputs, layout)
    for port in network.outputs:
        np.testing.assert_array_equal(turned[port.name], expected[port.tensor])
    if layout is TfliteLayout.NCHW:
        assert outputs["extra2"].shape == (2, 8, 9, 8)
    else:
        assert outputs["extra2"].shape == (2, 9, 8, 8)


@pytest.mark.parametrize("io", IoType)
def test_all_256_values_pass_the_ports_unchanged(io: IoType) -> None:
    quantization = Quantization(0.03125, 5)
    tensors = {
        name: ActivationTensor(name, (1, 256), quantization) for name in ("image", "bounded")
    }
    build = NetworkBuilder(np.random.default_rng(0), tensors)
    result = build.clamp("image", -128, 127)
    network = build.network(result, io=io)
    integers = np.arange(-128, 128).astype(np.int8)[None]
    given_values = to_tflite_layout(network, {"input": integers})
    returned = litert.run(write_tflite(network), given_values)["scores"]
    np.testing.assert_array_equal(returned, given_values["input"])
    expected: dict[IoType, AnyArray] = {
        IoType.FLOAT: quantization.dequantize(integers),
        IoType.INT8: integers,
        IoType.UINT8: np.arange(256, dtype=np.uint8)[None],
    }
    np.testing.assert_array_equal(returned, expected[io])
    assert returned.dtype == expected[io].dtype


def test_float_input_is_quantized_as_the_plan_says() -> None:
    quantization = Quantization(0.015625, -7)
    build = NetworkBuilder(np.random.default_rng(0))
    build.tensors["image"] = ActivationTensor("image", (1, 4096), quantization)
    network = build.network(build.clamp("image", -128, 127), io=IoType.FLOAT)
    real = np.random.default_rng(5).uniform(-3, 3, (1, 4096)).astype(np.float32)
    raw = litert.run_probe(probe_tflite(write_tflite(network)), {"input": real})
    np.testing.assert_array_equal(raw["image"], quantization.quantize(real))


def test_same_network_gives_same_bytes() -> None:
    assert write_tflite(every_operator()) == write_tflite(every_operator())


def test_plain_cnn_is_one_partition_without_transposes() -> None:
    for io in (IoType.FLOAT, IoType.INT8):
        data = write_tflite(plain_cnn(io))
        assert litert.partitions(data) == 1
        assert set(litert.kernels(data).values()) <= {"XNNPACK", None}
        assert "TRANSPOSE" not in describe(data)


def test_nchw_costs_one_transpose() -> None:
    data = write_tflite(plain_cnn(), TfliteLayout.NCHW)
    assert describe(data).count("TRANSPOSE") == 1
    assert litert.partitions(data) == 1


def test_plain_cnn_as_text() -> None:
    assert describe(write_tflite(plain_cnn())) == GOLDEN.read_text()


def test_constants_are_aligned_to_16_bytes() -> None:
    data = write_tflite(plain_cnn())
    for tensor in parse_tflite(data).tensors:
        if tensor.values is not None and tensor.values.nbytes >= 16:
            assert data.index(tensor.values.tobytes()) % 16 == 0


def test_a_port_may_have_the_name_of_its_tensor() -> None:
    build = NetworkBuilder(np.random.default_rng(1))
    result = build.conv(build.image(2, 4, 4), 3)
    ports = (Port("image", "image"),), (Port(result, result),)
    for io, layout in itertools.product(IoType, TfliteLayout):
        network = QuantizedNetwork(build.tensors, tuple(build.operators), *ports, io)
        assert_equals_reference(network, layout)


def test_one_tensor_may_be_two_outputs() -> None:
    build = NetworkBuilder(np.random.default_rng(1))
    result = build.conv(build.image(2, 4, 4), 3)
    for io in IoType:
        network = build.network(result, result, io=io)
        outputs = litert.run(
            write_tflite(network), to_tflite_layout(network, random_inputs(network))
        )
        np.testing.assert_array_equal(outputs["scores"], outputs["extra1"])


def test_dilated_pooling_is_refused_by_name() -> None:
    build = NetworkBuilder(np.random.default_rng(1))
    window = Window((2, 2), dilations=(2, 2))
    network = build.network(build.max_pool(build.image(1, 6, 6), window))
    with pytest.raises(UnsupportedOperatorError, match="no max pooling with dilations"):
        write_tflite(network)
