"""Small quantized files, read as export reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploykit.exporting.grids import check_grids
from deploykit.graph.onnx_admission import check_float_or_quantized
from deploykit.graph.onnx_source import OnnxSource, read_onnx
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import integers_on
from tests.onnx_files import file, node, save

SCALES = np.array([0.02, 0.03, 0.05, 0.01], np.float32)
INTEGERS = np.random.default_rng(3).integers(-7, 8, (4, 3, 3, 3))
INTEGERS[:, 0, 0, 0] = (7, -7, 7, -7)
PAIR = [node("QuantizeLinear", "a s z", "i"), node("DequantizeLinear", "i s z", "b")]
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
