"""Rows of a linear's input, rounded to int8 in the reference."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from deploykit.verify.rounded_rows import Rows, with_rounded_rows
from tests.onnx_files import file, node, normal


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("rows", list(Rows))
def test_rows_are_rounded_as_stated(rows: Rows, opset: int) -> None:
    weight, inputs = normal(16, 4), normal(6, 16, seed=1)
    inputs[0], inputs[1] = 0.0, np.abs(inputs[1]) + 1
    model = file([node("MatMul", "x w", "y")], {"w": weight}, {"x": (6, 16)}, {"y": (6, 4)}, opset)
    network = Network(ir.from_proto(onnx.shape_inference.infer_shapes(model)), {})
    found = evaluate_outputs(with_rounded_rows(network, ("y",), rows), inputs)["y"]
    wanted = np.stack([rounded(row.astype(np.float64), rows) for row in inputs]) @ weight
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found - inputs @ weight).max() > 1e-4


def rounded(row: AnyArray, rows: Rows) -> AnyArray:
    """As the enum says it."""
    if not row.any():
        return row
    if rows is Rows.ABOUT_ZERO:
        scale = np.abs(row).max() / 127
        return np.asarray(np.rint(row / scale) * scale)
    low, high = min(row.min(), 0.0), max(row.max(), 0.0)
    scale = (high - low) / 255
    zero = np.rint(-128 - low / scale)
    return np.asarray((np.clip(np.rint(row / scale) + zero, -128, 127) - zero) * scale)
