"""Networks whose operators have an integer form only once they are lowered, from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.tflite_file import parse_tflite
from deploykit.errors import DataError, QuantizationError
from deploykit.runtime import litert, ort
from deploykit.spec.parity import Verdict
from tests import small_models
from tests.exported import copy_of, mend, save

BODY = """
<ir_version: 10, opset_import: ["": 20]>
mobile (float[1,3,16,16] image) => (float[1,5,8,8] scores) {
    stem = Conv <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (image, w0, b0)
    trunk = HardSwish (stem)
    squeezed = GlobalAveragePool (trunk)
    few = Conv (squeezed, w1, b1)
    lit = Relu (few)
    many = Conv (lit, w2, b2)
    gate = HardSigmoid <alpha=0.16666667, beta=0.5> (many)
    gated = Mul (trunk, gate)
    narrow = Conv <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (gated, w3, b3)
    low = Relu (narrow)
    smooth = AveragePool <kernel_shape=[2,2], strides=[2,2]> (trunk)
    wide = Conv (smooth, w6, b6)
    opened = Sigmoid (wide)
    soft = Mul (wide, opened)
    joined = Concat <axis=1> (low, soft)
    normed = BatchNormalization (joined, g, t, m, v)
    again = Relu (normed)
    up = ConvTranspose <kernel_shape=[2,2], strides=[2,2]> (again, w4, b4)
    coarse = Resize <mode="nearest", coordinate_transformation_mode="asymmetric",
                     nearest_mode="floor"> (low, , scales)
    beside = Concat <axis=1> (up, coarse)
    scores = Conv (beside, w5, b5)
}
"""


def mobile() -> onnx.ModelProto:
    """A stem, a gate, a hard swish, both ways of resizing, concatenations of unlike ranges."""
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(BODY)
    shapes = {
        "w0": (8, 3, 3, 3), "w1": (4, 8, 1, 1), "w2": (8, 4, 1, 1), "w3": (6, 8, 3, 3),
        "w4": (12, 4, 2, 2), "w5": (5, 10, 1, 1), "w6": (6, 8, 1, 1),
    }  # fmt: skip
    sizes = {"b0": 8, "b1": 4, "b2": 8, "b3": 6, "b4": 4, "b5": 5, "b6": 6,
             "g": 12, "t": 12, "m": 12, "v": 12}  # fmt: skip
    arrays = {
        name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) * 2
        for name, shape in shapes.items()
    }
    arrays |= {name: rng.normal(size=size) / 4 for name, size in sizes.items()}
    arrays["v"] = np.abs(arrays["v"]) + 0.5
    arrays["scales"] = np.array([1, 1, 2, 2], np.float32)
    for name, array in arrays.items():
        held = array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(held, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("lowered")
    onnx.save(mobile(), folder / "mobile.onnx")
    inputs = np.random.default_rng(1).normal(size=(32, 3, 16, 16)).astype(np.float32)
    save(folder / "data.npz", inputs=inputs)
    return deploykit.export(
        folder / "mobile.onnx", data=folder / "data.npz", out=folder / "bundle", exact=True
    )


def test_both_runtimes_compute_the_reference_in_every_tensor(bundle: Bundle) -> None:
    assert [one["differing"] for one in bundle.manifest["parity"]] == [0, 0]
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed


def test_every_operator_runs_in_a_fast_kernel(bundle: Bundle) -> None:
    kernels = {layer["name"]: layer["kernels"] for layer in bundle.manifest["layers"]}
    slow = {name: by["litert"] for name, by in kernels.items() if by["litert"] != "XNNPACK"}
    assert slow == {"coarse": "RESIZE_NEAREST_NEIGHBOR"}
    floats = {by["onnxruntime"] for by in kernels.values()} & {"Conv", "Add", "Mul", "Sigmoid"}
    assert not floats
    codes = [one.code for one in parse_tflite(bundle.file("model.tflite").read_bytes()).operators]
    assert "TRANSPOSE" not in codes


def test_the_factors_of_the_hard_activations_are_gone(bundle: Bundle) -> None:
    operators = [layer["operator"] for layer in bundle.manifest["layers"]]
    # x + 3 once, the gate's in a bias; a sum with zero where a Relu meets a tensor with negative
    # values, twice.
    assert operators.count("Add") == 3
    assert operators.count("Mul") == 3
    assert operators.count("Lookup") == 1
    assert operators.count("DepthToSpace") == 1


def test_the_integers_follow_the_floats(bundle: Bundle) -> None:
    assert min(value for value in bundle.manifest["sqnr_db"].values() if value) > 25.0


def test_the_float_model_stays_as_it_was_shipped(bundle: Bundle) -> None:
    kinds = {node.op_type for node in onnx.load(bundle.file("model.float.onnx")).graph.node}
    assert {"HardSwish", "HardSigmoid", "AveragePool", "ConvTranspose"} <= kinds


def test_a_constant_that_somebody_changed_is_found(bundle: Bundle, tmp_path: Path) -> None:
    changed = copy_of(bundle.path, tmp_path)
    model = onnx.load(changed / "model.float.onnx")
    node = next(one for one in model.graph.node if one.op_type == "HardSigmoid")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("alpha", 0.2))
    onnx.save(model, changed / "model.float.onnx")
    mend(changed)
    failed = [
        step
        for step in deploykit.verify_bundle(changed).steps
        if step.verdict is Verdict.FAILED and "float weights" in step.compared
    ]
    assert len(failed) == 2


@pytest.mark.parametrize("means", [None, [1e9] * 3, "many"])
def test_a_bias_correction_by_means_that_no_tensor_has_is_refused(
    means: object, bundle: Bundle, tmp_path: Path
) -> None:
    changed = copy_of(bundle.path, tmp_path)
    plan = json.loads((changed / "plan.json").read_bytes())
    first = next(layer for layer in plan["layers"].values() if "weight" in layer)
    first["bias_corrected_by_input_means"] = means
    (changed / "plan.json").write_text(json.dumps(plan))
    mend(changed)
    *failed, sizes = [
        step for step in deploykit.verify_bundle(changed).steps if step.verdict is Verdict.FAILED
    ]
    assert failed
    assert all("input means" in step.detail for step in failed)
    assert sizes.detail.startswith("sizes.plan.json: ")


@pytest.fixture(scope="module")
def probabilities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that ends in a softmax, and labelled data."""
    folder = tmp_path_factory.mktemp("softmax")
    small_models.save_random(small_models.probabilities(), folder / "small.pt")
    drawn = np.random.default_rng(0).normal(size=(16, 1, 4, 4)).astype(np.float32)
    save(folder / "data.npz", inputs=drawn, labels=np.arange(16) % 3)
    return folder


def export_probabilities(folder: Path, **options: Any) -> Bundle:
    return deploykit.export(
        folder / "small.pt", model="tests.small_models:probabilities", input_shape=(1, 1, 4, 4),
        data=folder / "data.npz", eval_data=folder / "data.npz", prune_rule="none",
        out=folder / "bundle", **options,
    )  # fmt: skip


def test_a_softmax_at_the_end_stays_a_softmax(probabilities: Path) -> None:
    bundle = export_probabilities(probabilities)
    assert [one["differing"] for one in bundle.manifest["parity"]] == [0, 0]
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed
    with np.load(probabilities / "data.npz") as data:
        inputs = data["inputs"]
    (onnx_output,) = ort.run(bundle.file("model.onnx").read_bytes(), {"input": inputs}).values()
    lite = litert.run(
        bundle.file("model.tflite").read_bytes(), {"input": inputs.transpose(0, 2, 3, 1)}
    )
    np.testing.assert_allclose(onnx_output.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(lite["output"], onnx_output, atol=1e-6)


def test_a_softmax_cannot_be_an_integer(probabilities: Path) -> None:
    with pytest.raises(QuantizationError, match="--io int8: the network ends in Softmax"):
        export_probabilities(probabilities, io="int8")


def test_a_softmax_that_somebody_took_away_is_found(probabilities: Path, tmp_path: Path) -> None:
    changed = copy_of(export_probabilities(probabilities).path, tmp_path)
    model = onnx.load(changed / "model.onnx")
    softmax = next(one for one in model.graph.node if one.op_type == "Softmax")
    softmax.op_type = "Identity"
    del softmax.attribute[:]
    onnx.save(model, changed / "model.onnx")
    mend(changed)
    failed = [
        step for step in deploykit.verify_bundle(changed).steps if step.verdict is Verdict.FAILED
    ]
    assert failed


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector: three outputs of different ranks, one in the middle of the network."""
    folder = tmp_path_factory.mktemp("heads")
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1,3,8,8] image) => (float[1,4,8,8] map, float[1,6,4,4] boxes, float[1,5] classes) {
            a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, w0, b0)
            map = Relu (a)
            boxes = Conv <kernel_shape=[2,2], strides=[2,2]> (map, w1, b1)
            p = GlobalAveragePool (boxes)
            f = Flatten (p)
            logits = Gemm <transB=1> (f, w2, b2)
            classes = Softmax <axis=1> (logits)
        }
        """
    )
    rng = np.random.default_rng(2)
    shapes = {"w0": (4, 3, 3, 3), "b0": (4,), "w1": (6, 4, 2, 2), "b1": (6,), "w2": (5, 6),
              "b2": (5,)}  # fmt: skip
    for name, shape in shapes.items():
        drawn = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(drawn, name))
    onnx.save(model, folder / "heads.onnx")
    inputs = rng.normal(size=(16, 3, 8, 8)).astype(np.float32)
    save(folder / "data.npz", inputs=inputs, labels=np.arange(16) % 5)
    return folder


def test_several_outputs_keep_their_names_and_agree(heads: Path) -> None:
    data = heads / "data.npz"
    bundle = deploykit.export(heads / "heads.onnx", data=data, out=heads / "bundle")
    assert [port["name"] for port in bundle.manifest["outputs"]] == ["map", "boxes", "classes"]
    assert [one["differing"] for one in bundle.manifest["parity"]] == [0, 0]
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed
    with np.load(data) as stored:
        inputs = stored["inputs"]
    found = ort.run(bundle.file("model.onnx").read_bytes(), {"image": inputs})
    lite = litert.run(
        bundle.file("model.tflite").read_bytes(), {"image": inputs.transpose(0, 2, 3, 1)}
    )
    assert set(found) == set(lite) == {"map", "boxes", "classes"}
    np.testing.assert_array_equal(lite["boxes"].transpose(0, 3, 1, 2), found["boxes"])
    np.testing.assert_array_equal(lite["map"].transpose(0, 3, 1, 2), found["map"])
    np.testing.assert_allclose(lite["classes"], found["classes"], atol=1e-6)


def test_labels_say_nothing_of_several_outputs(heads: Path) -> None:
    data = heads / "data.npz"
    with pytest.raises(DataError, match="has 3 outputs, so its answers cannot be held"):
        deploykit.export(heads / "heads.onnx", data=data, eval_data=data, out=heads / "other")
