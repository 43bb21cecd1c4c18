"""The stand-alone runner, as a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploykit.bench import runner
from deploykit.bench.runner import is_steady
from tests.bench.tiny_models import write_convolution, write_linear

RUNNER = Path(runner.__file__)


def start(*words: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RUNNER, *words], capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    write_convolution(path)
    return path


def test_answer(model: Path) -> None:
    core = max(os.sched_getaffinity(0))
    done = start("--model", model, "--runs", "7", "--cpu", str(core))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == runner.SCHEMA
    assert answer["runtime"] == "onnxruntime"
    assert len(answer["samples_ns"]) == 7
    assert all(sample > 0 for sample in answer["samples_ns"])
    assert answer["load_ns"] > 0
    assert answer["first_inference_ns"] > 0
    assert len(answer["warmup"]["samples_ns"]) >= 2 * runner.WINDOW
    assert answer["affinity"] == str(core)
    assert answer["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert answer["runner_sha256"] == hashlib.sha256(RUNNER.read_bytes()).hexdigest()
    assert answer["memory"]["peak_bytes"] > answer["memory"]["start_bytes"] > 0


def test_dump_of_golden_inputs(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    options = ("--inputs", tmp_path / "in.npz", "--dump", tmp_path / "out.npz")
    done = start("--model", model, "--runs", "1", "--warmup-windows", "0", *options)
    assert done.returncode == 0, done.stderr
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), axis=(1, 2))
    expected = windows.sum(axis=(3, 4))[:, None].repeat(2, axis=1)
    with np.load(tmp_path / "out.npz") as dumped:
        np.testing.assert_allclose(dumped["y"], expected, rtol=1e-5)
    assert json.loads(done.stdout)["warmup"]["settled"] is False


def test_litert(tmp_path: Path) -> None:
    write_linear(tmp_path / "model.tflite")
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32) / 64
    np.savez(tmp_path / "in.npz", anything=x)
    options = ("--inputs", tmp_path / "in.npz", "--dump", tmp_path / "out.npz")
    done = start("--model", tmp_path / "model.tflite", "--runs", "1", *options)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["runtime"] == "ai_edge_litert"
    assert answer["facts"]["nodes"]["FULLY_CONNECTED"] == 1
    with np.load(tmp_path / "out.npz") as dumped:
        [outputs] = dumped.values()
    np.testing.assert_array_equal(outputs * 64, [[3, 7], [11, 15]])


def test_copied_alone_it_still_runs(model: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    copied = alone / "runner.py"
    copied.write_bytes(RUNNER.read_bytes())
    done = subprocess.run(
        [sys.executable, copied, "--model", model, "--runs", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=alone,
    )
    assert done.returncode == 0, done.stderr
    assert "deploykit." not in copied.read_text(encoding="utf-8").replace(runner.SCHEMA, "")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.onnx", None, "does not exist"),
        ("model.pt", b"", "no runtime reads .pt, only ['.onnx', '.tflite']"),
        ("broken.onnx", b"garbage", "error: "),
        ("broken.tflite", b"garbage", "error: "),
    ],
)
def test_failure_ends_with_a_sentence(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = start("--model", tmp_path / name)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last


def test_inputs_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 8, 8, 1), np.float32))
    done = start("--model", model, "--inputs", tmp_path / "in.npz")
    assert done.returncode == 1
    assert "float32 [1, 8, 8, 1], but the model reads float32 [1, 1, 8, 8]" in done.stderr


def test_core_that_does_not_exist(model: Path) -> None:
    done = start("--model", model, "--cpu", "4095")
    assert done.returncode == 1
    assert "cannot pin to core 4095" in done.stderr


def test_without_the_runtime(model: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('taken away')", encoding="utf-8")
    program = tmp_path / "runner.py"
    program.write_bytes(RUNNER.read_bytes())
    done = subprocess.run(
        [sys.executable, program, "--model", model], capture_output=True, text=True, check=False
    )
    assert done.returncode == runner.NO_RUNTIME
    assert "no runtime can be imported (onnxruntime: taken away)" in done.stderr


def test_steady() -> None:
    flat = [1000, 1005] * 10
    assert is_steady(flat)
    assert not is_steady(flat[:19])


def test_a_step_between_windows_is_not_steady() -> None:
    assert not is_steady([1000] * 10 + [950] * 10)


def test_a_slow_trend_is_not_steady() -> None:
    falling = [1000 - 2 * step for step in range(20)]
    assert not is_steady(falling)


def test_old_history_is_forgotten() -> None:
    assert is_steady([9000] * 10 + [1000] * 20)
