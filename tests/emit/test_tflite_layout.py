"""Layouts and names, against literal arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.emit.tflite_layout import (
    TfliteLayout,
    file_shape,
    flattened_order,
    from_tflite_layout,
    tensor_names,
    to_tflite_layout,
)
from deploykit.errors import DataError
from deploykit.spec.quantized import IoType, Port
from tests.emit.tflite_networks import NetworkBuilder, plain_cnn


def builder() -> NetworkBuilder:
    return NetworkBuilder(np.random.default_rng(0))


def test_file_shape() -> None:
    assert file_shape((1, 3, 8, 6)) == (1, 8, 6, 3)
    assert file_shape((1, 10)) == (1, 10)


def test_flattened_in_hwc_order_where_only_linears_read() -> None:
    build = builder()
    flat = build.flatten(build.image(3, 2, 4))
    clamped = build.clamp(flat, -5, 5)
    network = build.network(build.linear(clamped, 2), build.linear(flat, 2))
    assert flattened_order(network) == {flat: (3, 2, 4), clamped: (3, 2, 4)}


def test_flattened_in_chw_order_where_somebody_else_reads() -> None:
    for public in (True, False):
        build = builder()
        flat = build.flatten(build.image(3, 2, 4))
        other = flat if public else build.add(flat, flat)
        network = build.network(build.linear(flat, 2), other)
        assert flattened_order(network) == {}


@pytest.mark.parametrize("shape", [(1, 4, 4), (5, 1, 1)])
def test_order_does_not_matter_for_one_channel_or_one_pixel(shape: tuple[int, int, int]) -> None:
    build = builder()
    network = build.network(build.linear(build.flatten(build.image(*shape)), 2))
    assert flattened_order(network) == {}


def test_from_file_layout() -> None:
    build = builder()
    flat = build.flatten(build.image(2, 1, 3))
    network = build.network(build.linear(flat, 2))
    image = np.arange(6, dtype=np.int8).reshape(1, 2, 1, 3)
    raw = {
        "input": image.transpose(0, 2, 3, 1),
        flat: np.array([[0, 3, 1, 4, 2, 5]], dtype=np.int8),
        "a helper": np.zeros(3, dtype=np.int8),
    }
    tensors = from_tflite_layout(network, raw)
    assert tensors.keys() == {"image", flat}
    np.testing.assert_array_equal(tensors["image"], image)
    np.testing.assert_array_equal(tensors[flat], image.reshape(1, 6))


def test_to_file_layout_and_element_type() -> None:
    build = builder()
    network = build.network(build.conv(build.image(2, 1, 3), 1))
    image = np.array([[[[-128, 0, 127]], [[1, 2, 3]]]], dtype=np.int8)
    nhwc = image.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(to_tflite_layout(network, {"input": image})["input"], nhwc)
    unsigned = to_tflite_layout(replace(network, io=IoType.UINT8), {"input": image})["input"]
    np.testing.assert_array_equal(unsigned, (nhwc.astype(np.int16) + 128).astype(np.uint8))
    quantization = network.tensors["image"].quantization
    real = to_tflite_layout(replace(network, io=IoType.FLOAT), {"input": image}, TfliteLayout.NCHW)[
        "input"
    ]
    np.testing.assert_array_equal(real, quantization.dequantize(image))


def test_missing_and_misshapen_inputs_are_named() -> None:
    with pytest.raises(DataError, match="'input'"):
        to_tflite_layout(plain_cnn(), {"image": np.zeros((1, 3, 8, 12), dtype=np.int8)})
    with pytest.raises(DataError, match="pass it as NCHW"):
        to_tflite_layout(plain_cnn(), {"input": np.zeros((1, 8, 12, 3), dtype=np.int8)})


def test_names_stay_unless_a_port_has_them() -> None:
    network = replace(plain_cnn(IoType.FLOAT), inputs=(Port("image", "image"),))
    assert tensor_names(network)["image"] == "image_int8"
    assert tensor_names(replace(network, io=IoType.INT8))["image"] == "image"
    assert (
        tensor_names(replace(network, io=IoType.INT8), TfliteLayout.NCHW)["image"] == "image_int8"
    )
    assert tensor_names(plain_cnn(IoType.FLOAT))["image"] == "image"
    assert tensor_names(plain_cnn(IoType.INT8))["image"] == "input"
