"""Measures every model file of a bundle, round by round, each round a fresh process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from deploykit.bench import runner
from deploykit.bench.answer import Answer, parse_answer
from deploykit.bench.device import Device
from deploykit.bench.manifest import Work, read_work
from deploykit.bench.models import FLOAT_MODELS, RUNTIME_BY_SUFFIX, Models, collect_models
from deploykit.bench.order import abba_order
from deploykit.bench.summary import NS_PER_MS, summarize
from deploykit.errors import ConfigError, DeviceError, RuntimeUnavailableError
from deploykit.spec.bench import BenchReport, DeviceRecord, ModelBench, ProcessRound, Unmeasured
from deploykit.spec.progress import Progress, Silent


@dataclass(frozen=True)
class Effort:
    """How long to measure. timeout_s: for one process, loading and warm-up included."""

    rounds: int = 10
    runs: int = 100
    threads: int = 1
    seed: int = 0
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("rounds", "runs", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it has to be 1 or more")


STANDARD = Effort()
SILENT = Silent()


def bench_bundle(
    bundle: Path,
    device: Device,
    effort: Effort = STANDARD,
    progress: Progress = SILENT,
) -> BenchReport:
    """Latency, load time and memory of the bundle's model files on a device.

    Models take turns in a randomised ABBA order. Nothing is written into the bundle.
    """
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as scratch:
        return _measure(collect_models(bundle, Path(scratch)), bundle, device, effort, progress)


def _measure(
    models: Models, bundle: Path, device: Device, effort: Effort, progress: Progress
) -> BenchReport:
    present = tuple(models.files)
    work = read_work(bundle)
    record = device.describe()
    program = device.push(Path(runner.__file__))
    pushed = {model: device.push(path) for model, path in models.files.items()}
    order = abba_order(present, effort.rounds, effort.seed)
    answers: dict[str, list[tuple[int, Answer]]] = {model: [] for model in present}
    missing: dict[str, str] = {}
    with progress.stage(f"measuring on {device.name}") as advance:
        for place, model in enumerate(order):
            advance(place, len(order))
            if model in missing:
                continue
            command = _command(device, program, pushed[model], record, effort)
            try:
                answers[model].append((place, _ask(device, command, model, effort.timeout_s)))
            except RuntimeUnavailableError as error:
                missing[model] = str(error)
    if len(missing) == len(present):
        raise RuntimeUnavailableError("; ".join(missing.values()))
    return BenchReport(
        bundle=bundle.name,
        device=record,
        threads=effort.threads,
        seed=effort.seed,
        models=tuple(
            _summary(model, rounds, work, effort.seed)
            for model, rounds in answers.items()
            if model not in missing
        ),
        unmeasured=(*_without_runtime(missing), *models.missing),
        overflowing=work.overflowing if record.adds_in_16_bits else (),
    )


def _command(
    device: Device, program: str, model: str, record: DeviceRecord, effort: Effort
) -> Sequence[str]:
    core = record.pinned_core
    pin = () if core is None else ("--cpu", str(core))
    sizes = ("--runs", str(effort.runs), "--threads", str(effort.threads))
    return (device.python, program, *sizes, *pin, "--model", model)


def _ask(device: Device, command: Sequence[str], model: str, timeout_s: float) -> Answer:
    done = device.run(command, timeout_s)
    if done.exit_code == runner.NO_RUNTIME:
        reason = done.last_error_line().removeprefix("error: ")
        raise RuntimeUnavailableError(f"{model} on {device.name}: {reason}")
    if done.exit_code != 0:
        raise DeviceError(f"{model} failed on {device.name}: {done.last_error_line()}")
    try:
        return parse_answer(done.stdout)
    except ValueError as error:
        raise DeviceError(
            f"{model} on {device.name}: the runner's answer is not understood ({error})"
        ) from error


def _without_runtime(missing: Mapping[str, str]) -> tuple[Unmeasured, ...]:
    return tuple(
        Unmeasured(model, RUNTIME_BY_SUFFIX[Path(model).suffix], reason)
        for model, reason in missing.items()
    )


def _summary(model: str, rounds: Sequence[tuple[int, Answer]], work: Work, seed: int) -> ModelBench:
    answers = [answer for _, answer in rounds]
    first = answers[0]
    peaks = [answer.peak_memory_bytes for answer in answers if answer.peak_memory_bytes is not None]
    return ModelBench(
        file=model,
        runtime=first.runtime,
        runtime_version=first.runtime_version,
        size_bytes=first.model_bytes,
        sha256=first.model_sha256,
        runner_sha256=first.runner_sha256,
        latency=summarize([answer.samples_ns for answer in answers], seed),
        first_inference_ms=median(answer.first_inference_ns for answer in answers) / NS_PER_MS,
        load_ms=median(answer.load_ns for answer in answers) / NS_PER_MS,
        peak_memory_bytes=int(median(peaks)) if peaks else None,
        settled_rounds=sum(answer.settled for answer in answers),
        macs=work.macs,
        bytes_moved=work.float_bytes_moved if model in FLOAT_MODELS else work.bytes_moved,
        facts=first.facts,
        rounds=tuple(_round(place, answer) for place, answer in rounds),
    )


def _round(place: int, answer: Answer) -> ProcessRound:
    return ProcessRound(
        order=place,
        load_ns=answer.load_ns,
        first_inference_ns=answer.first_inference_ns,
        warmup_ns=answer.warmup_ns,
        settled=answer.settled,
        samples_ns=answer.samples_ns,
        peak_memory_bytes=answer.peak_memory_bytes,
        affinity=answer.affinity,
    )
