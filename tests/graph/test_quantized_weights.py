"""Weights of a quantized graph become floats on a grid, form by form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import integers_on
from tests.graph.quantized_files import (
    INTEGERS,
    SCALES,
    assert_kept,
    convolution,
    dequantized,
    read,
)
from tests.onnx_files import node


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
