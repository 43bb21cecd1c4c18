"""Bundles that begin at a float ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import ConfigError, DataError, GraphError, UnsupportedOperatorError
from deploykit.spec.parity import Verdict
from tests import onnx_files
from tests.cli.running import assert_refused, run
from tests.exported import contents, save
from tests.onnx_files import file, node, normal
from tests.small_models import RESIDUAL_SHAPE, residual


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with two dead channels and an open batch, and labelled data."""
    folder = tmp_path_factory.mktemp("onnx")
    onnx_files.save(onnx_files.classifier(11), folder / "net.onnx")
    save(folder / "data.npz", inputs=normal(16, 3, 8, 8), labels=np.arange(16) % 5)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    data = folder / "data.npz"
    return deploykit.export(folder / "net.onnx", data=data, eval_data=data, out=folder / "bundle")


def test_the_manifest_says_where_it_began(bundle: Bundle, folder: Path) -> None:
    manifest = bundle.manifest
    assert manifest["source"]["kind"] == "onnx"
    assert manifest["source"]["name"] == "net.onnx"
    assert manifest["source"]["bytes"] == (folder / "net.onnx").stat().st_size
    assert manifest["source"]["opset"] == 11
    assert manifest["fold"] is None
    stages = {"samples", "original", "pruned", "model.onnx", "model.tflite"}
    assert set(manifest["accuracy"]) == stages
    layers = {layer["operator"]: layer for layer in manifest["layers"]}
    assert (layers["Conv"]["channels_before"], layers["Conv"]["channels_after"]) == (6, 4)


def test_it_verifies_and_the_first_step_does_not_apply(bundle: Bundle) -> None:
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed
    first, *others = report.steps
    assert first.verdict is Verdict.INAPPLICABLE
    assert first.detail == "no Bayesian mean forward: the export began at an ONNX file"
    assert {step.verdict for step in others} == {Verdict.PASSED, Verdict.UNCHECKED}


def test_every_verb_takes_the_bundle(bundle: Bundle, folder: Path) -> None:
    shown = run("inspect", bundle.path)
    assert shown.exit_code == 0, shown.stderr
    assert "original" in shown.stdout
    assert json.loads(run("inspect", bundle.path, "--json").stdout)["manifest"]["fold"] is None
    assert run("verify", bundle.path).exit_code == 0
    measured = run("bench", bundle.path, "--rounds", "1", "--runs", "3")
    assert measured.exit_code == 0, measured.stderr


def test_it_is_byte_identical_when_exported_again(bundle: Bundle, folder: Path) -> None:
    data = folder / "data.npz"
    again = deploykit.export(folder / "net.onnx", data=data, eval_data=data, out=folder / "again")
    assert contents(again.path) == contents(bundle.path)


def test_the_command_line_takes_it(folder: Path, tmp_path: Path) -> None:
    words: list[str | Path] = ["export", folder / "net.onnx", "--data", folder / "data.npz"]
    words += ["--out", tmp_path / "b"]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert "6 → 4" in result.stdout
    assert "read ONNX file" in result.stderr
    for option, value in (("--model", "m:f"), ("--prune-rule", "none"), ("--threshold", "1"),
                          ("--batchnorm", "keep")):  # fmt: skip
        assert_refused(run(*words, option, value), 3, f"{option} belongs to checkpoints")


def test_a_network_from_torch_at_a_size_that_the_file_leaves_open(tmp_path: Path) -> None:
    size = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    torch.manual_seed(0)
    program = torch.onnx.export(
        residual().eval(), (torch.zeros(2, 3, 64, 48),), dynamo=True, verbose=False,
        dynamic_shapes=(size,),
    )  # fmt: skip
    assert program is not None
    program.save(tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=normal(8, *RESIDUAL_SHAPE[1:]))
    with pytest.raises(ConfigError, match="give --input-shape"):
        deploykit.export(tmp_path / "net.onnx", data=data, out=tmp_path / "b")
    bundle = deploykit.export(
        tmp_path / "net.onnx", data=data, out=tmp_path / "b", input_shape=RESIDUAL_SHAPE
    )
    assert bundle.manifest["inputs"][0]["shape"] == list(RESIDUAL_SHAPE)
    assert not deploykit.verify_bundle(bundle.path).failed


def test_what_export_cannot_take_is_refused_and_nothing_written(
    folder: Path, tmp_path: Path
) -> None:
    data, out = folder / "data.npz", tmp_path / "b"
    two = file(
        [node("MatMul", "x w", "m"), node("Add", "m k", "y")], {"w": normal(3, 4)},
        {"x": [1, 3], "k": [2, 4]}, {"y": None},
    )  # fmt: skip
    double = file(
        [node("Relu", "x", "r"), node("Add", "r w", "y")], {}, {"x": [1, 3]}, {"y": None},
        kind=onnx.TensorProto.DOUBLE,
    )  # fmt: skip
    double.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3), "w"))
    sine = file(
        [node("MatMul", "x w", "m"), node("Sin", "m", "y")], {"w": normal(3, 4)}, {"x": [1, 3]},
        {"y": None},
    )  # fmt: skip
    save(tmp_path / "three.npz", inputs=normal(8, 3))
    for model, error, told in (
        (two, ConfigError, r"different batches \(x \[1, 3\], k \[2, 4\]\)"),
        (double, GraphError, "'x' is float64; only float32"),
        (sine, UnsupportedOperatorError, "operator Sin"),
    ):
        path = onnx_files.save(model, tmp_path / "net.onnx")
        with pytest.raises(error, match=told):
            deploykit.export(path, data=tmp_path / "three.npz", out=out)
    with pytest.raises(DataError, match=r"`inputs` has shape \[8, 3\]"):
        deploykit.export(folder / "net.onnx", data=tmp_path / "three.npz", out=out)
    with pytest.raises(ConfigError, match="--input-shape 1,3,9,9 does not fit"):
        deploykit.export(folder / "net.onnx", data=data, out=out, input_shape=(1, 3, 9, 9))
    assert not out.exists()
