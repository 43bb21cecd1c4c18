"""deploykit bench, on a folder with two tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploykit.bench import host
from deploykit_cli.main import app
from tests.bench.tiny_models import write_convolution, write_linear

QUICK = ["--rounds", "2", "--runs", "3"]


FILES = ["model.float.onnx", "model.onnx", "model.tflite"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("model.float.onnx", "model.onnx"):
        write_convolution(tmp_path / name)
    write_linear(tmp_path / "model.tflite")
    return tmp_path


def test_table(bundle: Path) -> None:
    before = sorted(path.name for path in bundle.iterdir())
    result = CliRunner().invoke(app, ["bench", str(bundle), "--device", "host", *QUICK])
    assert result.exit_code == 0, result.stderr
    for expected in (*FILES, "ORT", "LiteRT", "model.float.tflite", "Nothing was written"):
        assert expected in result.stdout
    assert sorted(path.name for path in bundle.iterdir()) == before


def test_answers_that_differ_here_are_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "processor_flags", lambda: frozenset({"avx2"}))
    manifest = {"int16_pairs": {"overflowing": ["conv1", "fc"]}, "layers": []}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = CliRunner().invoke(app, ["bench", str(bundle), "--rounds", "1", "--runs", "1"])
    assert (
        "model.onnx gives other integers on this processor (AVX2 without VNNI; layers conv1, fc): "
        "export with --target x86-avx2 (or any)." in result.stdout
    )


def test_json_is_alone_on_stdout(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(bundle), "--json", *QUICK])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["schema"] == "deploykit.bench/1"
    assert [model["file"] for model in report["models"]] == FILES
    assert [len(model["rounds"]) for model in report["models"]] == [2, 2, 2]
    assert {len(entry["samples_ns"]) for m in report["models"] for entry in m["rounds"]} == {3}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--device", "adb:7"], 3, "--device takes host"),
        (["--rounds", "0"], 3, "rounds is 0"),
    ],
)
def test_wrong_option(bundle: Path, words: list[str], code: int, told: str) -> None:
    result = CliRunner().invoke(app, ["bench", str(bundle), *words])
    assert result.exit_code == code
    assert told in result.stderr


def test_not_a_bundle(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(tmp_path)])
    assert result.exit_code == 3
    assert "holds none of model.float.onnx" in result.stderr


def test_a_model_that_fails(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"not a model")
    result = CliRunner().invoke(app, ["bench", str(bundle), *QUICK])
    assert result.exit_code == 5
    assert "model.onnx failed on host: error: " in result.stderr
    assert result.stdout == ""
