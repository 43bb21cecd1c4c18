"""Activations of a quantized graph become floats on a grid, form by form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploykit.spec.given import ActivationGrid
from deploykit.spec.quantized import Quantization
from tests.graph.quantized_files import (
    ACTIVATION,
    INTEGERS,
    PAIR,
    SCALES,
    assert_kept,
    read,
    weight_of,
)
from tests.graph.text import written
from tests.onnx_files import node


def test_a_signed_tensor_is_its_own(tmp_path: Path) -> None:
    nodes = [node("Tanh", "x", "a"), *PAIR, node("Neg", "b", "y")]
    source = read(nodes, {"s": np.float32(0.01), "z": np.int8(5)}, tmp_path)
    assert written(source.network) == "a[1,3,6,6] = Tanh(x)\ny[1,3,6,6] = Neg(a)"
    grid = source.network.given.activations["a"]
    assert grid == ActivationGrid(Quantization(float(np.float32(0.01)), 5), -128, 127, 8)


@pytest.mark.parametrize("ends_in_relu", [False, True])
def test_a_grid_from_zero_is_a_relu(tmp_path: Path, ends_in_relu: bool) -> None:
    first = [node("Neg", "x", "n"), node("Relu" if ends_in_relu else "Neg", "n", "a")]
    source = read([*first, *PAIR, node("Neg", "b", "y")], ACTIVATION, tmp_path)
    ((name, grid),) = source.network.given.activations.items()
    assert grid == ActivationGrid.unsigned(float(np.float32(0.05)), 8)
    operators = [one.op_type for one in source.network.model.graph]
    bound = ["Relu"] if ends_in_relu else ["Neg", "Clip"]
    assert operators == ["Neg", *bound, "Neg"]
    assert name == ("a" if ends_in_relu else "a.on_grid")


@pytest.mark.parametrize(("ends", "bits"), [((0, 15), 4), ((0, 3), 2), ((0, 6), 3)])
def test_clipped_integers_are_fewer_bits(tmp_path: Path, ends: tuple[int, int], bits: int) -> None:
    nodes = [
        node("Relu", "x", "a"), node("QuantizeLinear", "a s z", "i"),
        node("Clip", "i low high", "j"), node("DequantizeLinear", "j s z", "b"),
        node("Neg", "b", "y"),
    ]  # fmt: skip
    held = {**ACTIVATION, "low": np.uint8(ends[0]), "high": np.uint8(ends[1])}
    source = read(nodes, held, tmp_path, opset=17)
    (grid,) = source.network.given.activations.values()
    assert (grid.bits, grid.low, grid.high) == (bits, -128, -128 + ends[1])
    assert [one.op_type for one in source.network.model.graph] == ["Relu", "Clip", "Neg"]


def test_two_grids_of_one_tensor_are_two_tensors(tmp_path: Path) -> None:
    nodes = [
        node("Tanh", "x", "a"), node("QuantizeLinear", "a s z", "i"),
        node("DequantizeLinear", "i s z", "b"), node("QuantizeLinear", "a t z", "j"),
        node("DequantizeLinear", "j t z", "c"), node("Add", "b c", "y"),
    ]  # fmt: skip
    held = {"s": np.float32(0.01), "t": np.float32(0.02), "z": np.int8(0)}
    source = read(nodes, held, tmp_path)
    scales = [grid.quantization.scale for grid in source.network.given.activations.values()]
    assert scales == [float(np.float32(0.01)), float(np.float32(0.02))]
    assert [one.op_type for one in source.network.model.graph] == ["Tanh", "Clip", "Clip", "Add"]


def in_a_row(second: str) -> list[onnx.NodeProto]:
    """Two pairs behind `a`; `second` is the scale of the later one."""
    return [
        *PAIR, node("QuantizeLinear", f"b {second} z", "j"),
        node("DequantizeLinear", f"j {second} z", "c"),
    ]  # fmt: skip


TWO_SCALES = {"s": np.float32(0.01), "t": np.float32(0.02), "z": np.int8(0)}


def test_a_grid_behind_a_grid_bounds_what_is_on_the_first(tmp_path: Path) -> None:
    nodes = [node("Tanh", "x", "a"), *in_a_row("t"), node("Neg", "c", "y")]
    source = read(nodes, TWO_SCALES, tmp_path)
    (clip,) = (one for one in source.network.model.graph if one.op_type == "Clip")
    given = source.network.given.activations
    assert [given[str(value.name)].quantization.scale for value in (clip.inputs[0], *clip.outputs)
            if value is not None] == [float(np.float32(0.01)), float(np.float32(0.02))]  # fmt: skip
    assert [one.op_type for one in source.network.model.graph] == ["Tanh", "Clip", "Neg"]


def test_two_grids_behind_the_input(tmp_path: Path) -> None:
    source = read(
        [*in_a_row("t"), node("Neg", "c", "y")], TWO_SCALES, tmp_path, inputs={"a": [1, 3, 6, 6]}
    )
    assert [one.op_type for one in source.network.model.graph] == ["Clip", "Neg"]
    assert len(source.network.given.activations) == 2
    assert source.network.given.activations["a"].quantization.scale == float(np.float32(0.01))


def test_the_same_grid_again_is_the_first(tmp_path: Path) -> None:
    nodes = [node("Tanh", "x", "a"), *in_a_row("s"), node("Neg", "c", "y")]
    source = read(nodes, TWO_SCALES, tmp_path)
    assert [one.op_type for one in source.network.model.graph] == ["Tanh", "Neg"]
    assert set(source.network.given.activations) == {"a"}


@pytest.mark.parametrize("shape", [(), (1,)])
def test_bounds_of_integers_are_single_numbers_of_any_rank(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    nodes = [
        node("Relu", "x", "a"), node("QuantizeLinear", "a s z", "i"),
        node("Clip", "i low high", "j"), node("DequantizeLinear", "j s z", "b"),
        node("Clip", "q least most", "k"), node("DequantizeLinear", "k ws wz", "w", axis=0),
        node("Conv", "b w", "y", pads=[1] * 4),
    ]  # fmt: skip
    held = {
        **ACTIVATION, "low": np.zeros(shape, np.uint8), "high": np.full(shape, 15, np.uint8),
        "q": INTEGERS.astype(np.int8), "ws": SCALES, "wz": np.zeros(4, np.int8),
        "least": np.full(shape, -3, np.int8), "most": np.full(shape, 3, np.int8),
    }  # fmt: skip
    source = read(nodes, held, tmp_path, opset=17)
    ((grid,), (weight,)) = (one.values() for one in (
        source.network.given.activations, source.network.given.weights
    ))  # fmt: skip
    assert grid.bits == 4
    assert weight.bits == 3
    np.testing.assert_array_equal(
        weight_of(source), INTEGERS.clip(-3, 3).astype(np.float32) * SCALES.reshape(4, 1, 1, 1)
    )


def test_what_moves_integers_moves_real_numbers(tmp_path: Path) -> None:
    nodes = [
        node("Neg", "x", "a"), node("QuantizeLinear", "a s z", "i"),
        node("MaxPool", "i", "m", kernel_shape=[2, 2]), node("Pad", "m pads seven", "p"),
        node("Flatten", "p", "f"), node("DequantizeLinear", "f s z", "y"),
    ]  # fmt: skip
    held = {
        "s": np.float32(0.04), "z": np.uint8(90), "seven": np.uint8(7),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }  # fmt: skip
    source = read(nodes, held, tmp_path)
    operators = [one.op_type for one in source.network.model.graph]
    assert operators[:4] == ["Neg", "MaxPool", "Pad", "Flatten"]
    assert set(source.network.given.activations) == {"a"}


def test_the_largest_integer_is_the_largest_number(tmp_path: Path) -> None:
    nodes = [
        node("Neg", "x", "a"), node("QuantizeLinear", "a s z", "i"),
        node("ArgMax", "i", "k", axis=1), node("Cast", "k", "y", to=TensorProto.FLOAT),
    ]  # fmt: skip
    source = read(nodes, {"s": np.float32(0.04), "z": np.uint8(90)}, tmp_path)
    operators = [one.op_type for one in source.network.model.graph]
    assert operators == ["Neg", "ArgMax", "Cast"]


def test_operators_on_integers(tmp_path: Path) -> None:
    """QLinearConv, QLinearAdd: the same float graph as QDQ has, run against the file itself."""
    nodes = [
        node("QuantizeLinear", "x s z", "i"),
        node("QLinearConv", "i s z q ws wz s z b", "j", pads=[1] * 4),
        helper.make_node(
            "QLinearAdd", ["j", "s", "z", "j", "s", "z", "s2", "z"], ["k"], "k",
            domain="com.microsoft",
        ),
        node("DequantizeLinear", "k s2 z", "y"),
    ]  # fmt: skip
    held = {
        "s": np.float32(0.03), "z": np.uint8(120), "s2": np.float32(0.06),
        "q": INTEGERS.astype(np.int8), "ws": SCALES, "wz": np.zeros(4, np.int8),
        "b": np.array([50, -60, 7, 800], np.int32),
    }  # fmt: skip
    source = read(nodes, held, tmp_path)
    assert_kept(source, INTEGERS, SCALES, 8)
    assert [one.op_type for one in source.network.model.graph] == ["Conv", "Add"]
    assert set(source.network.given.activations) == {"x", "j.real", "y"}
