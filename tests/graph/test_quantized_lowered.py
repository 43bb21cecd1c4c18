"""Grids that a file states, in the layouts that layers and integer operators have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.graph.lowering import lower
from deploykit.graph.normalize import normalize
from deploykit.spec.given import integers_on
from tests.graph.quantized_files import INTEGERS, PAIR, SCALES, dequantized, read
from tests.onnx_files import node


def test_a_weight_read_along_both_axes_keeps_its_grid_where_scales_are_by_output(
    tmp_path: Path,
) -> None:
    integers = INTEGERS.reshape(4, 27)[:, :4]
    nodes = [
        *dequantized(), node("Gemm", "x w", "a", transB=1), node("Relu", "a", "r"),
        node("Gemm", "r w", "y"),
    ]  # fmt: skip
    held = {"q": integers.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8)}
    network = read(nodes, held, tmp_path, inputs={"x": [1, 4]}).network
    names = [str(one.inputs[1].name) for one in network.model.graph  # type: ignore[union-attr]
             if one.op_type == "Gemm"]  # fmt: skip
    assert list(network.given.weights) == names[:1]
    assert [refused.name for refused in network.given.refused] == names[1:]
    assert "along the inputs" in network.given.refused[0].why


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution_s_scales_run_along_the_second_axis(
    tmp_path: Path, groups: int
) -> None:
    integers = INTEGERS.reshape(4, 27)[:, :16].reshape(4, 4, 2, 2)
    held = {"q": integers.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8)}
    nodes = [*dequantized(axis=1), node("ConvTranspose", "x w", "y", group=groups)]
    source = read(nodes, held, tmp_path, inputs={"x": [1, 4, 3, 3]})
    (grid,) = source.network.given.weights.values()
    np.testing.assert_array_equal(grid.scale, SCALES)
    lowered = lower(source.network)
    ((name, phased),) = lowered.given.weights.items()
    weight = lowered.model.graph.initializers[name].const_value
    assert weight is not None
    found = integers_on(weight.numpy(), phased)
    assert found is not None
    np.testing.assert_array_equal(found.scale, np.tile(SCALES, groups))


def test_the_phases_of_a_transposed_convolution_keep_its_integers(tmp_path: Path) -> None:
    integers = INTEGERS.reshape(4, 27)[:3, :16].reshape(3, 4, 2, 2)
    held = {"q": integers.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8)}
    nodes = [*dequantized(axis=1), node("ConvTranspose", "x w", "y", strides=[2, 2])]
    lowered = lower(read(nodes, held, tmp_path).network)
    ((name, grid),) = lowered.given.weights.items()
    weight = lowered.model.graph.initializers[name].const_value
    assert weight is not None
    found = integers_on(weight.numpy(), grid)
    assert found is not None
    phases = integers.transpose(2, 3, 1, 0).reshape(16, 3, 1, 1)
    np.testing.assert_array_equal(found.values, phases)
    np.testing.assert_array_equal(found.scale, np.tile(SCALES, 4))


def test_grids_of_a_signal_that_leaves_are_its_row_s_too(tmp_path: Path) -> None:
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[3]), node("QuantizeLinear", "a s z", "i"),
        node("DequantizeLinear", "i s z", "y"),
    ]  # fmt: skip
    held = {"s": np.float32(0.01), "z": np.int8(5)}
    lowered = lower(read(nodes, held, tmp_path, inputs={"x": [1, 3, 8]}).network)
    (pool,) = (one for one in lowered.model.graph if one.op_type == "MaxPool")
    assert set(lowered.given.activations) == {"y", str(pool.outputs[0].name)}


def test_grids_of_a_signal_are_its_row_s(tmp_path: Path) -> None:
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[3]), *PAIR, node("Flatten", "b", "f"),
        node("Neg", "f", "y"),
    ]  # fmt: skip
    held = {"s": np.float32(0.01), "z": np.int8(5)}
    network = read(nodes, held, tmp_path, inputs={"x": [1, 3, 8]}).network
    lowered = lower(network)
    ((name, grid),) = lowered.given.activations.items()
    assert grid == network.given.activations["a"]
    (pool,) = (one for one in lowered.model.graph if one.op_type == "MaxPool")
    assert name == pool.outputs[0].name


@pytest.mark.parametrize("gain", [(1.5, 0.5, 2.0, 0.25), (1.5, -0.5, 2.0, -0.25)])
def test_a_batch_norm_behind_a_transposed_convolution_scales_its_grid(
    tmp_path: Path, gain: tuple[float, ...]
) -> None:
    integers = INTEGERS.reshape(4, 27)[:3, :16].reshape(3, 4, 2, 2)
    nodes = [
        *dequantized(axis=1), node("ConvTranspose", "x w", "a", strides=[2, 2]),
        node("BatchNormalization", "a g b m v", "n", epsilon=0.0), node("Relu", "n", "y"),
    ]  # fmt: skip
    held = {
        "q": integers.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8),
        "g": np.array(gain, np.float32), "b": np.ones(4, np.float32),
        "m": np.full(4, 0.3, np.float32), "v": np.full(4, 0.25, np.float32),
    }  # fmt: skip
    lowered = lower(normalize(read(nodes, held, tmp_path).network))
    ((name, grid),) = lowered.given.weights.items()
    weight = lowered.model.graph.initializers[name].const_value
    assert weight is not None
    found = integers_on(weight.numpy(), grid)
    assert found is not None
    phases = integers.transpose(2, 3, 1, 0).reshape(16, 3, 1, 1)
    turned = np.tile(np.sign(gain), 4).reshape(16, 1, 1, 1)
    np.testing.assert_array_equal(found.values, phases * turned)
    wanted = np.tile(SCALES * np.abs(np.array(gain, np.float32)) * 2, 4)
    np.testing.assert_allclose(found.scale, wanted, rtol=1e-6)


@pytest.mark.parametrize("shape", [[1, 27], [1, 5, 27]])
def test_a_product_on_a_grid_takes_no_bias_in(tmp_path: Path, shape: list[int]) -> None:
    nodes = [
        *dequantized(axis=1), node("MatMul", "x w", "a"), node("QuantizeLinear", "a t u", "i"),
        node("DequantizeLinear", "i t u", "b"), node("Add", "b bias", "y"),
    ]  # fmt: skip
    integers = INTEGERS.reshape(27, 4).astype(np.int8)
    held = {
        "q": integers, "s": SCALES, "z": np.zeros(4, np.int8),
        "t": np.float32(0.01), "u": np.int8(5), "bias": np.arange(4, dtype=np.float32),
    }  # fmt: skip
    lowered = lower(normalize(read(nodes, held, tmp_path, inputs={"x": shape}).network))
    operators = [one.op_type for one in lowered.model.graph if one.op_type != "Reshape"]
    assert operators == ["Gemm", "Add"]
    assert set(lowered.given.activations) == {"a"}
    ((name, grid),) = lowered.given.weights.items()
    weight = lowered.model.graph.initializers[name].const_value
    assert weight is not None
    found = integers_on(weight.numpy(), grid)
    assert found is not None
    np.testing.assert_array_equal(found.values, integers.T)
    np.testing.assert_array_equal(found.scale, SCALES)


def test_a_convolution_on_a_grid_takes_no_bias_in(tmp_path: Path) -> None:
    nodes = [
        *dequantized(), node("Conv", "x w", "a"), node("QuantizeLinear", "a t u", "i"),
        node("DequantizeLinear", "i t u", "b"), node("Add", "b bias", "y"),
    ]  # fmt: skip
    held = {
        "q": INTEGERS.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8),
        "t": np.float32(0.01), "u": np.int8(5),
        "bias": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
    }  # fmt: skip
    network = normalize(read(nodes, held, tmp_path).network)
    assert [one.op_type for one in network.model.graph] == ["Conv", "Add"]
    assert set(network.given.activations) == {"a"}
