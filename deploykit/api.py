"""The Python API: one function per verb of the command line, with the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploykit.bundle import Bundle
    from deploykit.report.describe import Description
    from deploykit.spec.bench import BenchReport
    from deploykit.spec.parity import ParityReport
    from deploykit.spec.progress import Progress

StrPath = str | Path


def export(
    checkpoint: StrPath,
    *,
    out: StrPath,
    model: str | None = None,
    input_shape: Sequence[int] | None = None,
    data: StrPath | None = None,
    eval_data: StrPath | None = None,
    config: StrPath | None = None,
    bits: int | None = None,
    to: Sequence[str] | None = None,
    prune_rule: str | None = None,
    threshold: float | Mapping[str, float] | None = None,
    batchnorm: str | None = None,
    calibration: str | None = None,
    io: str | None = None,
    tflite_layout: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Make a bundle from a checkpoint: `deploykit export`.

    model: "FILE.py:FACTORY" or "package.module:factory"; the factory takes no arguments.
    input_shape: with the batch first, NCHW. data, eval_data: .npz files with `inputs` and,
    optionally, `labels`. config: an export.toml; what is given here overrides it.
    Defaults: both formats, 8 bits, rule "family", batch norm "keep", calibration "mse", io "float".

    Raises a deploykit.errors.DeploykitError; then nothing was written.
    """
    from deploykit.exporting.options import build_options
    from deploykit.pipeline import export_bundle

    given: dict[str, Any] = {
        "model": model, "input_shape": input_shape, "data": data, "eval_data": eval_data,
        "bits": bits, "to": to, "prune_rule": prune_rule, "threshold": threshold,
        "batchnorm": batchnorm, "calibration": calibration, "io": io,
        "tflite_layout": tflite_layout,
    }  # fmt: skip
    options = build_options(given, None if config is None else Path(config))
    return export_bundle(Path(checkpoint), options, Path(out), progress)


def verify_bundle(bundle: StrPath) -> ParityReport:
    """Check a bundle from its files alone: `deploykit verify`."""
    from deploykit.verify.ladder import verify_bundle

    return verify_bundle(Path(bundle))


def bench_bundle(
    bundle: StrPath, *, device: str = "host", rounds: int = 10, runs: int = 100
) -> BenchReport:
    """Measure a bundle's models on a device: `deploykit bench`.

    rounds: fresh processes for each model. runs: timed inferences in each process.
    """
    from deploykit.bench.devices import open_device
    from deploykit.bench.measure import Effort, bench_bundle

    with open_device(device) as target:
        return bench_bundle(Path(bundle), target, Effort(rounds=rounds, runs=runs))


def inspect(path: StrPath) -> Description:
    """Describe a checkpoint, a model file or a bundle: `deploykit inspect`.

    Returns a CheckpointSummary, a ModelSummary or a Bundle, whichever the path holds.
    """
    from deploykit.report.describe import describe

    return describe(Path(path))
