"""The Python API: one function per verb of the command line, with the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploykit.bundle import Bundle
    from deploykit.diagnose.findings import Diagnosis
    from deploykit.exporting.pruning import PrunedFile
    from deploykit.report.describe import Description
    from deploykit.spec.bench import BenchReport
    from deploykit.spec.parity import ParityReport
    from deploykit.spec.progress import Progress

StrPath = str | Path
InputShape = str | Sequence[int]
"""Sizes, batch first: (1, 16), or "1,16"; "1,16:int64" of token ids."""


def export(
    checkpoint: StrPath,
    *,
    out: StrPath,
    model: str | None = None,
    weights: str | None = None,
    input_shape: InputShape | Mapping[str, InputShape] | Sequence[str] | None = None,
    data: StrPath | None = None,
    eval_data: StrPath | None = None,
    config: StrPath | None = None,
    bits: int | str | Mapping[str, int | str] | None = None,
    layer_bits: Mapping[str, int | str] | Sequence[str] | None = None,
    plan: StrPath | None = None,
    max_bytes: int | str | None = None,
    target_bits: float | None = None,
    max_accuracy_drop: float | None = None,
    sensitivity: str | None = None,
    min_ort: str | None = None,
    tflite_lowbit: str | None = None,
    to: Sequence[str] | None = None,
    prune_rule: str | None = None,
    threshold: float | Mapping[str, float] | None = None,
    batchnorm: str | None = None,
    exact: bool | None = None,
    align: str | int | None = None,
    target: str | None = None,
    equalization: str | None = None,
    calibration: str | None = None,
    rounding: str | None = None,
    weight_range: str | None = None,
    bias_correction: str | None = None,
    io: str | None = None,
    tflite_layout: str | None = None,
    labels: StrPath | None = None,
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | str | None = None,
    batch: str | None = None,
    numerics: str | None = None,
    layer_map: StrPath | None = None,
    temperature: float | str | None = None,
    temperature_data: StrPath | None = None,
    activations: str | None = None,
    block_size: int | str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Make a bundle from a checkpoint, or from an .onnx file: `deploykit export`.

    checkpoint: a file that ends in .onnx enters behind folding: model, weights, layer_map,
    prune_rule, threshold, batchnorm and numerics do not apply then, and input_shape only where the
    file leaves a size open.
    model: "FILE.py:FACTORY" or "package.module:factory"; the factory takes no arguments.
    weights: the entry of the checkpoint that holds the network, such as "ema". layer_map: a JSON
    file, which layer of the network each layer of the checkpoint is, where their names differ.
    input_shape: with the batch first, NCHW; of several inputs one each by name, which are the
    arguments of the network's forward. data, eval_data: .npz files with `inputs` (or an array for
    each input by its name) and, optionally, `labels`. config: an export.toml; what is given here
    overrides it.
    exact: remove exact zeros only, not what float32 rounding hides. align: "auto" keeps dead
    channels where the kernels of `target` ("host", or a width table's name) are faster with them,
    a number rounds widths up to its multiples, "none" leaves them.
    target "any" or "x86-avx2" plans weights that are exact on x86 without VNNI too.
    bits: of weights, 8, 4 or 2, or 3, 5 or 6 stored as the next of those; layer_bits: by layer, as
    the export's table names them, for example {"conv1": 8, "fc": "float"}: the latter computes in
    float32. bits "auto" allocates them under one limit: max_bytes of a model file (40_000 or
    "40kB"), target_bits of a weight on average, or max_accuracy_drop in points of top-1 on
    eval_data, which then is other data than `data`; sensitivity: "posterior" or "moments" instead
    of "auto", the posterior where it is informative.
    plan: a plan.json whose bits of layers are taken. min_ort: the oldest ONNX Runtime that has to
    load model.onnx, such as "1.23". tflite_lowbit: "small" stores 4-bit convolutions in 4 bits too,
    which makes them slow.
    equalization: "cross-layer" scales channels by powers of two where that rounds better; the float
    network stays equal to the bit.
    labels: a text file, one class a line; mean, std: x = (pixel - mean) / std, one number or one
    per channel; both files carry them for apps to read.
    batch: "dynamic" for files that take any batch.
    temperature: by which the last layer divides the logits: a number, "labels" (fitted to those of
    temperature_data, or of every second sample of eval_data, the others then judging it) or
    "monte-carlo" (fitted to the average of draws on temperature_data, or on data).
    activations: "float" for networks whose weights are all in linears: those alone are integers, of
    4 or 8 bits, and all between them is float32. block_size: 32, 64 or 128 inputs of a 4-bit one
    share a scale.
    numerics: "reference" reproduces the errors of published float32 code, where it has any.
    Defaults: both formats, 8 bits, rule "family", batch norm "keep", numerics "exact", align "auto"
    for the host, equalization "none", calibration "mse", rounding "auto"
    (sequential below 8 bits, else compensated), weight_range
    "least-error", bias_correction "means", io "float", batch "fixed": that of input_shape.

    Raises a deploykit.errors.DeploykitError; then nothing was written.
    """
    from deploykit.exporting.options import build_options, source_of
    from deploykit.pipeline import export_bundle

    given: dict[str, Any] = {
        "model": model, "weights": weights, "input_shape": input_shape, "data": data,
        "eval_data": eval_data,
        "bits": bits, "layer_bits": layer_bits, "min_ort": min_ort,
        "tflite_lowbit": tflite_lowbit, "to": to, "prune_rule": prune_rule, "threshold": threshold,
        "exact": exact, "align": align, "target": target,
        "batchnorm": batchnorm, "equalization": equalization, "calibration": calibration,
        "rounding": rounding, "weight_range": weight_range,
        "bias_correction": bias_correction, "io": io,
        "tflite_layout": tflite_layout, "labels": labels, "mean": mean, "std": std,
        "batch": batch, "numerics": numerics, "layer_map": layer_map,
        "temperature": temperature, "temperature_data": temperature_data,
        "plan": plan, "max_bytes": max_bytes, "target_bits": target_bits,
        "max_accuracy_drop": max_accuracy_drop, "sensitivity": sensitivity,
        "activations": activations, "block_size": block_size,
    }  # fmt: skip
    file = None if config is None else Path(config)
    options = build_options(given, file, source_of(Path(checkpoint)))
    return export_bundle(Path(checkpoint), options, Path(out), progress)


def prune(
    path: StrPath,
    out: StrPath,
    *,
    report: StrPath | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    drop_dead_outputs: bool = False,
    data: StrPath | None = None,
    max_growth: float | None = None,
    align: str | int | None = None,
    groups: str = "split",
    narrow_layers: bool = False,
    target: str | None = None,
    progress: Progress | None = None,
) -> PrunedFile:
    """Remove dead channels from a float .onnx file, exactly: `deploykit prune`.

    report: where to write everything that was done as JSON. input_shape: batch first, by input name
    where there are several, for sizes that the file leaves open. drop_dead_outputs: cut constant
    channels of the outputs too; `kept_outputs` of the result says which are left. max_growth: how
    far merging constants may stretch a layer's weight range, unlimited by default; 1 keeps it, for
    a file that others quantize. data: an .npz with `inputs`; channels go too that float32 rounding
    hides on such data. align, target: as for `export`. groups: "split" or "equal", for convolutions
    whose groups keep different numbers of channels. narrow_layers: a layer whose tensor others keep
    wide computes its live channels alone, copied to their places, where `target` gains by it.

    Raises a deploykit.errors.DeploykitError; then nothing was written.
    """
    from deploykit.exporting.pruning import PruneOptions
    from deploykit.exporting.removing import removal_options
    from deploykit.graph.widths.host import Element, Runtime
    from deploykit.pipeline import prune_file

    shapes: dict[str | None, tuple[int, ...]] = {}
    if isinstance(input_shape, Mapping):
        shapes = {name: tuple(shape) for name, shape in input_shape.items()}
    elif input_shape is not None:
        shapes = {None: tuple(input_shape)}
    written = None if report is None else Path(report)
    asked = {
        "exact": data is None, "max_growth": max_growth, "align": align, "target": target,
        "drop_dead_outputs": drop_dead_outputs, "narrow_layers": narrow_layers,
        "groups": groups,
    }  # fmt: skip
    removal = removal_options(asked, [Runtime.ORT], Element.FLOAT32)
    options = PruneOptions(shapes, removal, None if data is None else Path(data))
    return prune_file(Path(path), Path(out), options, written, progress)


def verify_bundle(bundle: StrPath, *, eval_data: StrPath | None = None) -> ParityReport:
    """Check a bundle from its files alone: `deploykit verify`.

    eval_data: what the export was given, to check the accuracy that it measured too.
    """
    from deploykit.exporting.verifying import verify_on_data

    file = None if eval_data is None else Path(eval_data)
    return verify_on_data(Path(bundle), file, lambda text: None)


def diagnose_bundle(
    bundle: StrPath,
    *,
    data: StrPath | None = None,
    samples: int = 8,
    progress: Progress | None = None,
) -> Diagnosis:
    """What each layer of a bundle costs accuracy, and what helps the three that hurt most.

    `deploykit diagnose`. data: an .npz as for `export`; without it, what the bundle keeps of its
    own. samples: that are measured on; as many others, where there are, fit what is tried.

    Raises a deploykit.errors.DeploykitError.
    """
    from deploykit.diagnose.diagnosis import diagnose
    from deploykit.spec.progress import Silent

    file = None if data is None else Path(data)
    return diagnose(Path(bundle), file, samples, progress or Silent())


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


def inspect(
    path: StrPath,
    *,
    model: str | None = None,
    input_shape: InputShape | Mapping[str, InputShape] | Sequence[str] | None = None,
    weights: str | None = None,
    layer_map: StrPath | None = None,
) -> Description:
    """Describe a checkpoint, a model file or a bundle: `deploykit inspect`.

    model, input_shape, weights, layer_map: of a checkpoint, as for `export`. With a model its
    layers have the network's names, and a posterior in one vector is shown by layer.

    Returns a CheckpointSummary, a ModelSummary or a Bundle, whichever the path holds.
    """
    from deploykit.exporting.inspection import inspect_path

    return inspect_path(Path(path), model, input_shape, weights, layer_map)
