"""Networks that answer in whole numbers: an ArgMax at their end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.parity import Verdict
from tests import small_models
from tests.cli.running import assert_refused, run
from tests.exported import mend, save
from tests.onnx_files import normal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's checkpoint, and data labelled with its own answers."""
    folder = tmp_path_factory.mktemp("answers")
    network = small_models.answers()
    network.load_state_dict(torch.load(small_models.save_random(network, folder / "net.pt")))
    inputs = normal(64, 1, 4, 4)
    labels = network.eval()(torch.tensor(inputs)).numpy()
    save(folder / "data.npz", inputs=inputs, labels=labels)
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    result = run(
        "export", folder / "net.pt", "--model", "tests.small_models:answers", "--prune-rule",
        "none", "--align", "none", "--data", folder / "data.npz", "--eval-data",
        folder / "data.npz", "--input-shape", "1,1,4,4", "--labels", folder / "labels.txt",
        "--out", folder / "bundle",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "output 'output' int64 [1] (0 to 4)" in result.stdout
    return Bundle(folder / "bundle", deploykit.inspect(folder / "bundle").manifest)  # type: ignore[union-attr]


def test_a_classifier_is_exported_and_its_answers_are_counted(bundle: Bundle) -> None:
    kinds = [layer["operator"] for layer in bundle.manifest["layers"]]
    assert kinds[-2:] == ["Linear", "ArgMax"]
    assert bundle.manifest["accuracy"]["folded"] == 1.0
    assert bundle.manifest["accuracy"]["model.onnx"] > 0.8
    shares = bundle.manifest["accuracy"]
    assert shares["model.onnx"] == shares["model.tflite"]
    assert 0.8 < bundle.manifest["agreement"]["output"] <= 1.0
    checked = run("verify", bundle.path)
    assert checked.exit_code == 0, checked.stdout
    assert "output as in float on" in " ".join(checked.stdout.split())
    assert len(deploykit.bench_bundle(bundle.path, rounds=1, runs=2).models) == 4


def test_both_files_answer_alike(bundle: Bundle, folder: Path) -> None:
    image = np.load(folder / "data.npz")["inputs"]
    ours = ort.run(bundle.file("model.onnx").read_bytes(), {"input": image})["output"]
    nhwc = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    theirs = litert.run(bundle.file("model.tflite").read_bytes(), {"input": nhwc})["output"]
    assert ours.dtype == theirs.dtype == np.int64
    np.testing.assert_array_equal(ours, theirs)


def test_a_stated_agreement_that_is_wrong_fails(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for item in bundle.path.iterdir():
        (copy / item.name).write_bytes(item.read_bytes())
    text = (copy / "manifest.json").read_text()
    stated = bundle.manifest["agreement"]["output"]
    (copy / "manifest.json").write_text(text.replace(f'"output": {stated}', '"output": 0.25'))
    mend(copy)
    failed = [s for s in deploykit.verify_bundle(copy).steps if s.verdict is Verdict.FAILED]
    assert [step.number for step in failed] == [3]
    assert "not as stated" in failed[0].detail


def made(text: str, ports: str, **arrays: AnyArray) -> onnx.ModelProto:
    """A model from nodes in ONNX text."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g {ports} {{ {text} }}'
    )
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


PIXELS = "c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w)"


@pytest.mark.parametrize("io", ["float", "int8", "uint8"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_classes_of_pixels_beside_their_scores(io: str, layout: str, tmp_path: Path) -> None:
    model = made(
        f"{PIXELS} a = ArgMax <axis=1> (c) y = Cast <to=6> (a)",
        "(float[1,3,8,8] x) => (int32[1,1,8,8] y, float[1,5,8,8] c)",
        w=normal(5, 3, 3, 3),
    )
    onnx.save(model, tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=normal(40, 3, 8, 8, seed=1))
    bundle = deploykit.export(
        tmp_path / "net.onnx", data=tmp_path / "data.npz", out=tmp_path / "b", io=io,
        tflite_layout=layout, batch="dynamic", align="none",
    )  # fmt: skip
    classes, scores = bundle.manifest["outputs"]
    assert (classes["dtype"], classes["tflite_dtype"], classes["below"]) == ("int32", "int32", 5)
    assert scores["dtype"] == {"float": "float32"}.get(io, io)
    assert classes["tflite_shape"] == ([1, 8, 8, 1] if layout == "nhwc" else [1, 1, 8, 8])
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "y = ArgMax <axis=1, keepdims=0, select_last_index=1> (c)",
            "for the first of the largest",
        ),
        ("y = ArgMax <axis=2, keepdims=0> (c)", "along the channels where it is of images"),
        ("a = ArgMax <axis=1, keepdims=0> (c) y = Add (a, one)", "at the end of a network alone"),
        ("v, y = TopK <axis=1> (c, k)", "operator TopK has neither"),
        ("y = Cast <to=7> (c)", "operator Cast makes int64 of float; only"),
    ],
)
def test_other_whole_numbers_are_refused(text: str, told: str, tmp_path: Path) -> None:
    arrays = {"w": normal(5, 3, 3, 3), "one": np.array(1), "k": np.array([2])}
    model = made(f"{PIXELS} {text}", "(float[1,3,8,8] x) => (int64[] y)", **arrays)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=normal(8, 3, 8, 8))
    line: list[str | Path] = ["export", tmp_path / "net.onnx", "--data", tmp_path / "data.npz"]
    assert_refused(run(*line, "--out", tmp_path / "b"), 3, told)


def test_tokens_in_and_tags_out_have_no_port_to_quantize(tmp_path: Path) -> None:
    model = made(
        "e = Gather (t, ids) h = MatMul (e, w) tags = ArgMax <axis=-1, keepdims=0> (h)",
        "(int64[1,10] ids) => (int64[1,10] tags)", t=normal(30, 8), w=normal(8, 6),
    )  # fmt: skip
    onnx.save(model, tmp_path / "net.onnx")
    ids = np.random.default_rng(0).integers(0, 30, (24, 10))
    save(tmp_path / "data.npz", inputs=ids)
    line: list[str | Path] = ["export", tmp_path / "net.onnx", "--data", tmp_path / "data.npz"]
    line += ["--out", tmp_path / "b"]
    assert_refused(run(*line, "--io", "int8"), 3, "all inputs and outputs hold whole numbers")
    assert run(*line).exit_code == 0
    assert run("verify", tmp_path / "b").exit_code == 0
