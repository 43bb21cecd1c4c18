"""Quantized graphs become float graphs and grids, form by form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploykit.errors import GraphError
from deploykit.exporting.grids import check_grids
from deploykit.graph.onnx_admission import check_float_or_quantized
from deploykit.graph.onnx_source import OnnxSource, read_onnx
from deploykit.runtime.single_pass import run_as_stated
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import ActivationGrid, WeightGrid, integers_on
from deploykit.spec.quantized import Quantization
from tests.graph.text import written
from tests.onnx_files import file, node, save

SCALES = np.array([0.02, 0.03, 0.05, 0.01], np.float32)
INTEGERS = np.random.default_rng(3).integers(-7, 8, (4, 3, 3, 3))
INTEGERS[:, 0, 0, 0] = (7, -7, 7, -7)
ACTIVATION = {"s": np.float32(0.05), "z": np.uint8(0)}
IMAGE = {"x": [1, 3, 6, 6]}


def read(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    folder: Path,
    opset: int = 21,
    inputs: Mapping[str, Sequence[int | str | None]] | None = None,
    packed: Sequence[TensorProto] = (),
) -> OnnxSource:
    """The file as export reads it, its grids held against it. packed: initializers besides."""
    model = file(nodes, constants, inputs or IMAGE, {"y": None}, opset)
    model.graph.initializer.extend(packed)
    model.ir_version = 10 if opset < 25 else 13
    if any(one.domain for one in nodes):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    source = read_onnx(save(model, folder / "net.onnx"), None, check_float_or_quantized)
    check_grids(source)
    return source


def convolution(
    folder: Path,
    before: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    opset: int = 21,
    packed: Sequence[TensorProto] = (),
) -> OnnxSource:
    """A convolution of `w`, which `before` makes."""
    nodes = [*before, node("Conv", "x w", "y", pads=[1] * 4)]
    return read(nodes, constants, folder, opset, packed=packed)


def weight_of(source: OnnxSource) -> AnyArray:
    (conv,) = (one for one in source.network.model.graph if one.op_type == "Conv")
    assert conv.inputs[1] is not None and conv.inputs[1].const_value is not None
    return np.asarray(conv.inputs[1].const_value.numpy())


def assert_kept(source: OnnxSource, integers: AnyArray, scale: Any, bits: int) -> None:
    (grid,) = source.network.given.weights.values()
    assert grid.bits == bits
    np.testing.assert_array_equal(grid.scale, np.atleast_1d(scale))
    weight = weight_of(source)
    wide = np.asarray(scale, np.float32).reshape((-1,) + (1,) * (weight.ndim - 1))
    np.testing.assert_array_equal(weight, integers.astype(np.float32) * wide)
    found = integers_on(weight, grid)
    assert found is not None
    np.testing.assert_array_equal(found.values, integers)
    assert source.network.given.refused == ()


def dequantized(axis: int = 0, **more: Any) -> list[onnx.NodeProto]:
    return [node("DequantizeLinear", "q s z", "w", axis=axis, **more)]


def test_int8_by_channel(tmp_path: Path) -> None:
    held = {"q": INTEGERS.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8)}
    assert_kept(convolution(tmp_path, dequantized(), held), INTEGERS, SCALES, 8)


def test_a_scale_for_all_and_no_zero_point(tmp_path: Path) -> None:
    held = {"q": INTEGERS.astype(np.int8), "s": np.float32(0.02)}
    before = [node("DequantizeLinear", "q s", "w")]
    assert_kept(convolution(tmp_path, before, held), INTEGERS, np.float32(0.02), 8)


@pytest.mark.parametrize("zero", [128, 125])
def test_uint8_around_a_zero_point_is_int8_around_zero(tmp_path: Path, zero: int) -> None:
    held = {"q": (INTEGERS + zero).astype(np.uint8), "s": SCALES, "z": np.full(4, zero, np.uint8)}
    assert_kept(convolution(tmp_path, dequantized(), held), INTEGERS, SCALES, 8)


@pytest.mark.parametrize(
    ("kind", "zero", "integers", "bits"),
    [
        (TensorProto.INT4, 0, INTEGERS, 4),
        (TensorProto.UINT4, 8, INTEGERS, 4),
        (TensorProto.INT4, 0, np.where(INTEGERS == -7, -8, INTEGERS), 4),
        (TensorProto.UINT4, 5, INTEGERS.clip(-5, 7), 4),
        (TensorProto.UINT4, 0, INTEGERS.clip(0, 7) * 2, 5),
    ],
)
def test_4_bits(tmp_path: Path, kind: int, zero: int, integers: AnyArray, bits: int) -> None:
    packed = [
        helper.make_tensor("q", kind, (4, 3, 3, 3), (integers + zero).reshape(-1).tolist()),
        helper.make_tensor("z", kind, (4,), [zero] * 4),
    ]
    source = convolution(tmp_path, dequantized(), {"s": SCALES}, packed=packed)
    assert_kept(source, integers, SCALES, bits)


def test_2_bits_behind_a_cast(tmp_path: Path) -> None:
    integers = INTEGERS.clip(-1, 1)
    packed = [
        helper.make_tensor("p", TensorProto.INT2, (4, 3, 3, 3), integers.reshape(-1).tolist())
    ]
    before = [node("Cast", "p", "q", to=TensorProto.INT8), *dequantized()]
    held = {"s": SCALES, "z": np.zeros(4, np.int8)}
    assert_kept(convolution(tmp_path, before, held, 25, packed), integers, SCALES, 2)


def test_a_cast_wraps_what_its_type_does_not_hold(tmp_path: Path) -> None:
    stored = INTEGERS.copy()
    stored[0, 1, 1] = (127, 128, 255)
    wrapped = INTEGERS.copy()
    wrapped[0, 1, 1] = (127, -128, -1)
    before = [node("Cast", "p", "q", to=TensorProto.INT8), *dequantized()]
    held = {"p": (stored % 256).astype(np.uint8), "s": SCALES, "z": np.zeros(4, np.int8)}
    assert_kept(convolution(tmp_path, before, held), wrapped, SCALES, 8)


@pytest.mark.parametrize(("ends", "bits"), [((-7, 7), 4), ((-3, 3), 3), ((-127, 127), 8)])
def test_a_float_weight_that_the_file_rounds_and_clips(
    tmp_path: Path, ends: tuple[int, int], bits: int
) -> None:
    integers = INTEGERS.clip(*ends)
    wide = SCALES.reshape(4, 1, 1, 1)
    held = {
        "f": ((INTEGERS + 0.3) * wide).astype(np.float32), "s": SCALES, "z": np.zeros(4, np.int8),
        "low": np.int8(ends[0]), "high": np.int8(ends[1]),
    }  # fmt: skip
    before = [
        node("QuantizeLinear", "f s z", "i", axis=0), node("Clip", "i low high", "q"),
        *dequantized(),
    ]  # fmt: skip
    assert_kept(convolution(tmp_path, before, held, 17), integers, SCALES, bits)


def test_a_linear_s_turned_weight_and_int32_bias(tmp_path: Path) -> None:
    integers = INTEGERS.reshape(4, 27)
    bias = np.array([100, -2000, 30, 7], np.int32)
    held = {
        "q": integers.astype(np.int8), "s": SCALES, "z": np.zeros(4, np.int8),
        "b": bias, "bs": SCALES * np.float32(0.05),
    }  # fmt: skip
    nodes = [
        node("Flatten", "x", "flat"), *dequantized(), node("Transpose", "w", "turned", perm=[1, 0]),
        node("MatMul", "flat turned", "product"), node("DequantizeLinear", "b bs", "c", axis=0),
        node("Add", "product c", "y"),
    ]  # fmt: skip
    source = read(nodes, held, tmp_path, inputs={"x": [1, 3, 3, 3]})
    ((name, grid),) = source.network.given.weights.items()
    weight = source.network.model.graph.initializers[name].const_value
    assert weight is not None
    found = integers_on(weight.numpy().T, grid)
    assert found is not None
    np.testing.assert_array_equal(found.values, integers)
    add = source.network.model.graph[-1]
    assert add.inputs[1] is not None and add.inputs[1].const_value is not None
    steps = add.inputs[1].const_value.numpy() / (SCALES * np.float32(0.05))
    np.testing.assert_allclose(steps, bias, rtol=1e-6)


@pytest.mark.parametrize(
    ("held", "more", "why"),
    [
        ({"q": (INTEGERS + 133).astype(np.uint8), "z": np.full(4, 3, np.uint8)}, {},
         "reach 137"),
        ({"q": np.full((4, 3, 3, 3), -128, np.int8), "z": np.zeros(4, np.int8)}, {}, "-128 twice"),
        ({"q": INTEGERS.astype(np.int8), "s": SCALES[:3], "z": np.zeros(3, np.int8)}, {"axis": 1},
         "along the inputs"),
        ({"q": INTEGERS.astype(np.int8), "s": np.tile(SCALES[:2].reshape(2, 1, 1, 1), (1, 3, 3, 3)),
          "z": np.zeros((2, 3, 3, 3), np.int8)}, {"block_size": 2}, "for each block"),
    ],
)  # fmt: skip
def test_a_weight_that_cannot_keep_its_grid_keeps_its_numbers(
    tmp_path: Path, held: dict[str, AnyArray], more: dict[str, int], why: str
) -> None:
    source = convolution(tmp_path, dequantized(**more), {"s": SCALES, **held})
    (refused,) = source.network.given.refused
    assert (refused.kind, refused.bits) == ("weight", 8)
    assert why in refused.why
    assert source.network.given.weights == {}


PAIR = [node("QuantizeLinear", "a s z", "i"), node("DequantizeLinear", "i s z", "b")]


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


TO_INTEGERS = [node("QuantizeLinear", "x s z", "i"), node("DequantizeLinear", "i s z", "y")]


@pytest.mark.parametrize(
    ("nodes", "held", "told"),
    [
        (TO_INTEGERS, {"s": np.float32(1), "z": np.uint16(0)}, "quantize activations to 8 bits"),
        (TO_INTEGERS, {"s": np.float32(1), "z": np.int16(0)}, "neither runtime has a fast kernel"),
        (TO_INTEGERS, {"s": np.ones(3, np.float32), "z": np.zeros(3, np.int8)}, "per tensor"),
        (TO_INTEGERS, {"s": np.float32(0), "z": np.int8(0)}, "no positive float32 number"),
        ([node("DynamicQuantizeLinear", "x", "i s z"), node("DequantizeLinear", "i s z", "y")], {},
         "quantize statically"),
        ([node("ReduceMax", "x", "s", keepdims=0), *TO_INTEGERS], {"z": np.int8(0)},
         "quantize statically"),
        ([node("QuantizeLinear", "x s z", "i"), node("DequantizeLinear", "i t z", "y")],
         {"s": np.float32(1), "t": np.float32(2), "z": np.int8(0)}, "in other steps"),
        ([node("QuantizeLinear", "x s z", "i"), node("BitwiseAnd", "i i", "j"),
          node("DequantizeLinear", "j s z", "y")], {"s": np.float32(1), "z": np.int8(0)},
         "computes with integers"),
        ([node("QuantizeLinear", "x s z", "i"), node("Cast", "i", "y", to=TensorProto.FLOAT)],
         {"s": np.float32(1), "z": np.int8(0)}, "reads as they are"),
    ],
)  # fmt: skip
def test_what_no_bundle_can_hold_is_refused(
    tmp_path: Path, nodes: list[onnx.NodeProto], held: dict[str, AnyArray], told: str
) -> None:
    with pytest.raises(GraphError, match=told) as caught:
        read(nodes, {"unused": np.float32(1), **held}, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_float8_is_refused(tmp_path: Path) -> None:
    packed = [helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, (), [0.0])]
    with pytest.raises(GraphError, match="float8"):
        read(TO_INTEGERS, {"s": np.float32(1)}, tmp_path, packed=packed)


def test_prune_takes_no_integers(tmp_path: Path) -> None:
    model = file(TO_INTEGERS, {"s": np.float32(1), "z": np.int8(0)}, IMAGE, {"y": None}, 21)
    with pytest.raises(GraphError, match="is quantized"):
        read_onnx(save(model, tmp_path / "net.onnx"))


def test_grids_that_are_not_the_file_s_are_noticed(tmp_path: Path) -> None:
    nodes = [node("Tanh", "x", "a"), *PAIR, node("Neg", "b", "y")]
    source = read(nodes, {"s": np.float32(0.1), "z": np.int8(0)}, tmp_path)
    source.network.given.activations["a"] = ActivationGrid.unsigned(0.2, 4)  # type: ignore[index]
    with pytest.raises(GraphError, match="SQNR"):
        check_grids(source)


def test_a_row_with_the_lowest_integer_once_is_on_its_grid() -> None:
    rows = np.array([[-128, 5], [-128, -128]], np.float32)
    grid = WeightGrid(8, np.ones(1, np.float32))
    assert integers_on(rows[:1], grid) is not None
    assert integers_on(rows, grid) is None


def test_the_file_itself_is_run_as_it_is(tmp_path: Path) -> None:
    source = read(TO_INTEGERS, {"s": np.float32(0.5), "z": np.int8(0)}, tmp_path)
    given = np.full((1, 3, 6, 6), 0.7, np.float32)
    (found,) = run_as_stated(source.model.SerializeToString(), {"x": given}).values()
    assert set(found.reshape(-1)) == {np.float32(0.5)}
