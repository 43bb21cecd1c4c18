"""deploykit inspect: checkpoints, model files and bundles, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import assert_refused, run
from tests.exported import CHECKPOINT, TWIN, copy_of, flip
from tests.libraries.frame import CHECKPOINTS


def json_of(path: Path) -> dict[str, object]:
    result = run("inspect", path, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_bayesian_checkpoint_shows_its_families_and_gates() -> None:
    result = run("inspect", CHECKPOINT)
    assert result.exit_code == 0, result.stderr
    for told in ("conv1", "fc2", "normal-Jeffreys", "500x800", "Next: deploykit export"):
        assert told in result.stdout


def test_a_plain_checkpoint_says_so() -> None:
    result = run("inspect", TWIN)
    assert result.exit_code == 0
    assert "deterministic" in result.stdout
    assert "431,080 numbers" in result.stdout


@pytest.mark.parametrize(
    ("name", "form", "operators"),
    [
        ("model.onnx", "int8 ONNX (QDQ)", ["Conv", "MaxPool", "Linear"]),
        ("model.tflite", "int8 TFLite", ["Conv", "MaxPool", "Linear"]),
        ("model.float.onnx", "float ONNX", ["Conv", "MaxPool", "Gemm"]),
    ],
)
def test_a_model_file_shows_its_operators(
    name: str, form: str, operators: list[str], sample_bundle: Path
) -> None:
    result = run("inspect", sample_bundle / name)
    assert result.exit_code == 0, result.stderr
    assert form in result.stdout
    for operator in operators:
        assert operator in result.stdout
    found = json_of(sample_bundle / name)
    assert found["format"] == form
    assert found["size_bytes"] == (sample_bundle / name).stat().st_size


@pytest.mark.parametrize(("name", "kernel"), [("model.onnx", "QLinearConv"),
                                              ("model.tflite", "XNNPACK")])  # fmt: skip
def test_an_integer_model_shows_who_runs_each_operator(
    name: str, kernel: str, sample_bundle: Path
) -> None:
    assert kernel in run("inspect", sample_bundle / name).stdout


def test_a_bundle_shows_what_export_showed(sample_bundle: Path) -> None:
    result = run("inspect", sample_bundle)
    assert result.exit_code == 0, result.stderr
    for told in ("conv1", "QLinearConv", "model.tflite", "integers differ"):
        assert told in result.stdout


def test_json_of_each_kind(sample_bundle: Path) -> None:
    assert json_of(sample_bundle)["manifest"] == json.loads(
        (sample_bundle / "manifest.json").read_bytes()
    )
    assert "layers" in json_of(CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.onnx", b"no model", "a.onnx"),
        ("a.onnx", b"", "a.onnx"),
        ("a.tflite", b"no model", "a.tflite"),
        ("a.tflite", b"", "a.tflite"),
        ("a.pt", b"no checkpoint", "a.pt"),
        ("a.safetensors", b"no checkpoint", "a.safetensors"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(run("inspect", tmp_path / name), 3, told)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(run("inspect", tmp_path / "gone.pt"), 3, "gone.pt: there is no such file")
    assert_refused(run("inspect", tmp_path / "gone.onnx"), 3, "there is no such file")
    assert_refused(run("inspect", tmp_path), 3, "is not a bundle")


def test_a_damaged_bundle_is_refused_by_file(sample_bundle: Path, tmp_path: Path) -> None:
    damaged = copy_of(sample_bundle, tmp_path)
    flip(damaged / "plan.json", 3)
    assert_refused(run("inspect", damaged), 1, "plan.json is not the file that was written")


def test_bits_that_training_chose_stand_by_layer() -> None:
    path = CHECKPOINTS / "bayesian_bits.pt"
    result = run("inspect", path)
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "layer family shape gates closed weights activations" in lines
    assert "2 Bayesian Bits 24x16x3x3 24 16.7% 4 2" in lines
    assert "4 Bayesian Bits 10x600 8" in lines
    assert any("bits that training chose" in line for line in lines)
    layers = json_of(path)["layers"]
    assert isinstance(layers, list)
    assert [layer["weight_bits"] for layer in layers] == [2, 4, 8]
