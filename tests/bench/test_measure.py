"""The measurement, with a device that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploykit.bench import runner
from deploykit.bench.device import Completed
from deploykit.bench.measure import Effort, bench_bundle
from deploykit.errors import BundleError, DeviceError, RuntimeUnavailableError
from deploykit.spec.bench import DeviceRecord
from deploykit.spec.progress import Advance

RECORD = DeviceRecord(
    device="scripted",
    model=None,
    processor=None,
    operating_system="none",
    kernel="0",
    machine="none",
    memory_bytes=None,
    virtualized=None,
    cores=(),
    pinned_core=3,
    pinning="scripted",
    runtimes={},
)


def answer(**changes: Any) -> Completed:
    fields: dict[str, Any] = {
        "schema": runner.SCHEMA,
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "load_ns": 2_000_000,
        "first_inference_ns": 3_000_000,
        "warmup": {"samples_ns": [1] * 20, "settled": True},
        "samples_ns": [1_000_000] * 5,
        "memory": {"start_bytes": 100, "with_runtime_bytes": 150, "peak_bytes": 400},
        "affinity": "3",
        "facts": {},
        "model_bytes": 10,
        "model_sha256": "m",
        "runner_sha256": "r",
    }
    return Completed(0, "a runtime's own line\n" + json.dumps(fields | changes) + "\n", "")


class Scripted:
    """Answers by model file."""

    name = "scripted"
    python = "python3"

    def __init__(self, answers: dict[str, Completed], record: DeviceRecord = RECORD) -> None:
        self.answers = answers
        self.record = record
        self.commands: list[Sequence[str]] = []

    def describe(self) -> DeviceRecord:
        return self.record

    def push(self, local: Path) -> str:
        return f"/there/{local.name}"

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        self.commands.append(command)
        return self.answers[command[-1].removeprefix("/there/")]

    def pull(self, remote: str, local: Path) -> None:
        raise AssertionError("nothing to pull")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("model.float.onnx", "model.onnx", "model.tflite"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


ALL_WELL = {
    "model.float.onnx": answer(),
    "model.onnx": answer(),
    "model.tflite": answer(runtime="ai_edge_litert"),
}


def test_report(bundle: Path) -> None:
    device = Scripted(ALL_WELL)
    report = bench_bundle(bundle, device, Effort(rounds=6, runs=5))
    assert [model.file for model in report.models] == list(ALL_WELL)
    assert {model.latency.median_ms for model in report.models} == {1.0}
    assert {model.latency.interval_ms for model in report.models} == {(1.0, 1.0)}
    assert {model.peak_memory_bytes for model in report.models} == {300}
    assert {model.settled_rounds for model in report.models} == {6}
    assert len(device.commands) == 18
    assert device.commands[0][:2] == ("python3", "/there/runner.py")
    assert ("--cpu", "3") in zip(device.commands[0], device.commands[0][1:], strict=False)
    orders = sorted(entry.order for model in report.models for entry in model.rounds)
    assert orders == list(range(18))
    json.dumps(report.to_json())


class Heard:
    """Keeps what a stage told."""

    def __init__(self) -> None:
        self.news: list[tuple[int, int]] = []

    def stage(self, name: str) -> AbstractContextManager[Advance]:
        def advance(done: int, total: int) -> None:
            self.news.append((done, total))

        return nullcontext(advance)


def test_progress(bundle: Path) -> None:
    heard = Heard()
    bench_bundle(bundle, Scripted(ALL_WELL), Effort(rounds=2), heard)
    assert heard.news == [(place, 6) for place in range(6)]


def test_work_from_the_manifest(bundle: Path) -> None:
    layers = [{"macs": 10, "bytes": 5}, {"macs": 20, "bytes": 7}]
    (bundle / "manifest.json").write_text(json.dumps({"layers": layers}), encoding="utf-8")
    models = bench_bundle(bundle, Scripted(ALL_WELL), Effort(rounds=1)).models
    assert [model.macs for model in models] == [30, 30, 30]
    assert [model.bytes_moved for model in models] == [None, 12, 12]


@pytest.mark.parametrize(("in_16_bits", "told"), [(True, ("a",)), (False, ()), (None, ())])
def test_weights_that_overflow_are_told_where_they_do(
    bundle: Path, in_16_bits: bool | None, told: tuple[str, ...]
) -> None:
    manifest = {"int16_pairs": {"overflowing": ["a"]}, "layers": []}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    device = Scripted(ALL_WELL, replace(RECORD, adds_in_16_bits=in_16_bits))
    assert bench_bundle(bundle, device, Effort(rounds=1)).overflowing == told


@pytest.mark.parametrize("manifest", ["{}", '{"layers": []}', '{"layers": [{"name": "a"}]}', "[]"])
def test_manifest_that_does_not_say(bundle: Path, manifest: str) -> None:
    (bundle / "manifest.json").write_text(manifest, encoding="utf-8")
    models = bench_bundle(bundle, Scripted(ALL_WELL), Effort(rounds=1)).models
    assert {(model.macs, model.bytes_moved) for model in models} == {(None, None)}


def test_manifest_that_is_not_json(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        bench_bundle(bundle, Scripted(ALL_WELL))


def test_failing_model_is_named(bundle: Path) -> None:
    failed = Completed(1, "", "a warning\nerror: no such operator\n")
    with pytest.raises(DeviceError, match=r"model\.onnx failed on scripted: error: no such op"):
        bench_bundle(bundle, Scripted(ALL_WELL | {"model.onnx": failed}))


@pytest.mark.parametrize("stdout", ["", "hello", '{"schema": "other"}', "[1]"])
def test_answer_that_is_not_one(bundle: Path, stdout: str) -> None:
    odd = Completed(0, stdout, "")
    with pytest.raises(DeviceError, match=r"model\.onnx on scripted: the runner's answer"):
        bench_bundle(bundle, Scripted(ALL_WELL | {"model.onnx": odd}))


def test_missing_runtime_is_told_and_the_rest_measured(bundle: Path) -> None:
    missing = Completed(runner.NO_RUNTIME, "", "error: no runtime can be imported\n")
    device = Scripted(ALL_WELL | {"model.tflite": missing})
    report = bench_bundle(bundle, device, Effort(rounds=4))
    assert [model.file for model in report.models] == ["model.float.onnx", "model.onnx"]
    assert report.unmeasured[0].model == "model.tflite"
    assert "no runtime can be imported" in report.unmeasured[0].reason
    assert len(device.commands) == 9


def test_no_runtime_at_all(bundle: Path) -> None:
    missing = Completed(runner.NO_RUNTIME, "", "error: no runtime can be imported\n")
    with pytest.raises(RuntimeUnavailableError, match="no runtime can be imported"):
        bench_bundle(bundle, Scripted(dict.fromkeys(ALL_WELL, missing)))
