"""Which files are measured: the bundle's own, and float TFLite made from its float graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.bench.models import FLOAT_TFLITE, collect_models
from deploykit.bundle import write_bundle
from deploykit.errors import BundleError, IntegrityError
from deploykit.runtime import litert


def write_float_graph(path: Path, operator: str = "Relu") -> None:
    """x [1, 1, 4, 4] -> convolution by 2 -> `operator` -> y."""
    weight = numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32), "weight")
    bias = numpy_helper.from_array(np.zeros(1, np.float32), "bias")
    window: dict[str, Any] = {
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "pads": [0] * 4,
        "dilations": [1, 1],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weight", "bias"], ["c"], "conv", **window),
            helper.make_node(operator, ["c"], ["y"], "last"),
        ],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4])],
        [weight, bias],
        value_info=[helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 1, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


def test_float_tflite_computes_what_the_float_graph_does(tmp_path: Path) -> None:
    bundle, scratch = tmp_path / "bundle", tmp_path / "scratch"
    bundle.mkdir()
    scratch.mkdir()
    write_float_graph(bundle / "model.float.onnx")
    models = collect_models(bundle, scratch)
    assert list(models.files) == ["model.float.onnx", FLOAT_TFLITE]
    assert models.missing == ()
    inputs = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
    outputs = litert.run(models.files[FLOAT_TFLITE].read_bytes(), {"x": inputs})
    np.testing.assert_allclose(outputs["y"], np.maximum(2 * inputs, 0), rtol=1e-6)
    assert [path.name for path in bundle.iterdir()] == ["model.float.onnx"]


def test_what_tflite_lacks_in_float_too_is_spelled_out(tmp_path: Path) -> None:
    bundle, scratch = tmp_path / "bundle", tmp_path / "scratch"
    bundle.mkdir()
    scratch.mkdir()
    write_float_graph(bundle / "model.float.onnx", "LpNormalization")
    models = collect_models(bundle, scratch)
    assert models.missing == ()
    inputs = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
    outputs = litert.run(models.files[FLOAT_TFLITE].read_bytes(), {"x": inputs})
    expected = inputs / np.sqrt(np.square(inputs).sum(axis=2, keepdims=True))
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-5)


def test_operator_that_has_no_float_tflite_form_is_told_and_the_rest_measured(
    tmp_path: Path,
) -> None:
    write_float_graph(tmp_path / "model.float.onnx", "Sinh")
    models = collect_models(tmp_path, tmp_path)
    assert list(models.files) == ["model.float.onnx"]
    (missing,) = models.missing
    assert missing.model == FLOAT_TFLITE
    assert "Sinh" in missing.reason


def test_bundle_without_a_float_graph_has_no_float_tflite(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    (missing,) = collect_models(tmp_path, tmp_path).missing
    assert "model.float.onnx" in missing.reason


def test_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds none of"):
        collect_models(tmp_path, tmp_path)


def test_a_changed_bundle_is_not_measured(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", {"model.onnx": b"\0", "manifest.json": b"{}"}).path
    (bundle / "model.onnx").write_bytes(b"\1")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        collect_models(bundle, tmp_path)
