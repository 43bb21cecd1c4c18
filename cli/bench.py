"""deploykit bench: measure a bundle's models on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.spec.listing import listed

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.spec.bench import BenchReport, ModelBench


RUNTIME_LABELS = {"onnxruntime": "ORT", "ai_edge_litert": "LiteRT", "tflite_runtime": "TFLite"}


def bench(
    bundle: Annotated[Path, typer.Argument(help="Folder that `deploykit export` wrote.")],
    device: Annotated[str, typer.Option(help="Where to measure: host.")] = "host",
    rounds: Annotated[int, typer.Option(help="Processes for each model.")] = 10,
    runs: Annotated[int, typer.Option(help="Timed inferences in each process.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results, raw samples included, as JSON.")
    ] = False,
) -> None:
    """Measure latency, load time and memory of each model file, in fresh processes."""
    import json

    from rich.console import Console

    from deploykit.bench.devices import open_device
    from deploykit.bench.measure import Effort, bench_bundle
    from deploykit_cli.progress import StageLines

    effort = Effort(rounds=rounds, runs=runs)
    with open_device(device) as target:
        report = bench_bundle(bundle, target, effort, StageLines(Console(stderr=True)))
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    console = Console()
    console.print(_table(report))
    console.print(_work_table(report))
    for line in _notes(report, bundle):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(report: BenchReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("file", "runtime"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median\nms", "95 %\ninterval", "p90\nms", "first\nms", "load\nms", "peak\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("settled\nrounds", justify="right")
    for model in report.models:
        table.add_row(*_row(model))
    for absent in report.unmeasured:
        table.add_row(absent.model, RUNTIME_LABELS.get(absent.runtime, absent.runtime), *["-"] * 7)
    return table


def _work_table(report: BenchReport) -> Table:
    """What one inference costs by count: operations, and bytes read and written."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("file", no_wrap=True)
    for heading in ("file bytes", "MACs", "bytes moved"):
        table.add_column(heading, justify="right", min_width=14)
    for model in report.models:
        table.add_row(
            model.file, f"{model.size_bytes:,}", _count(model.macs), _count(model.bytes_moved)
        )
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _row(model: ModelBench) -> tuple[str, ...]:
    latency = model.latency
    interval = latency.interval_ms
    peak = model.peak_memory_bytes
    return (
        model.file,
        RUNTIME_LABELS.get(model.runtime, model.runtime),
        _three_digits(latency.median_ms),
        "-" if interval is None else "-".join(map(_three_digits, interval)),
        _three_digits(latency.p90_ms),
        _three_digits(model.first_inference_ms),
        _three_digits(model.load_ms),
        "-" if peak is None else f"{peak / 1e6:.1f}",
        f"{model.settled_rounds}/{len(model.rounds)}",
    )


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent: 0.0143, 2.50, 1234."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _notes(report: BenchReport, bundle: Path) -> list[str]:
    record = report.device
    notes = [
        f"{record.device}: {record.processor or record.machine}, {record.operating_system}, "
        f"kernel {record.kernel}{', virtual' if record.virtualized else ''}",
        ", ".join(sorted({f"{model.runtime} {model.runtime_version}" for model in report.models})),
        _pinned(report),
    ]
    if any(model.latency.interval_ms is None for model in report.models):
        notes.append("An interval needs at least 6 rounds: --rounds 6.")
    if any(model.settled_rounds < len(model.rounds) for model in report.models):
        notes.append("Some rounds did not settle: their latency still moved when timing began.")
    if any(model.file == "model.float.tflite" for model in report.models):
        notes.append("model.float.tflite was written for this measurement from model.float.onnx.")
    if report.overflowing and any(model.file == "model.onnx" for model in report.models):
        notes.append(
            "model.onnx gives other integers on this processor (AVX2 without VNNI; layers "
            f"{listed(report.overflowing)}): export with --target x86-avx2 (or any)."
        )
    notes += [f"{absent.model}: {absent.reason}" for absent in report.unmeasured]
    notes.append(
        f"Nothing was written. To keep the raw samples: deploykit bench {bundle} "
        f"--device {record.device} --json > bench.json"
    )
    return notes


def _pinned(report: BenchReport) -> str:
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    core = report.device.pinned_core
    where = "not pinned" if core is None else f"pinned to core {core}"
    return f"{threads}, {where} ({report.device.pinning})"
