"""The way through, from a checkpoint or an ONNX file to a proven bundle. Read this first.

Every stage takes the last one's result and gives it a new name; the types between them are in
`deploykit.spec`. Stages do not know each other: what one needs of another (an evaluator, a runtime)
is handed to it here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.bundle import Bundle, check_replaceable, json_bytes, write_bundle
from deploykit.errors import ConfigError, ParityError, UsageError
from deploykit.exporting.contents import bundle_files
from deploykit.exporting.data import load_samples
from deploykit.exporting.entry import CheckpointEntry, open_entry
from deploykit.exporting.evidence import (
    check_floats,
    check_rounding,
    measure_answers,
    prove_parity,
    record_golden,
)
from deploykit.exporting.file_out import check_writable, write_file
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.outcome import Outcome, Planned
from deploykit.exporting.prune_record import prune_record
from deploykit.exporting.pruning import (
    PrunedFile,
    PruneOptions,
    as_file,
    compare_files,
)
from deploykit.spec.progress import Advance, Progress, Silent
from deploykit.spec.weight_only import Activations

if TYPE_CHECKING:
    from deploykit.exporting.preparing import Prepared
    from deploykit.exporting.threshold_curve import ThresholdCurve
    from deploykit.quantize.settling import Runners
    from deploykit.spec.allocation import Allocation
    from deploykit.spec.network import Network
    from deploykit.spec.plan import QuantPlan
    from deploykit.verify.formats import Format


def plan_export(source: Path, options: ExportOptions, progress: Progress | None = None) -> Planned:
    """Enter, prune, plan; writes nothing.

    A checkpoint enters by being loaded, folded and captured, an ONNX file by being read.
    """
    from deploykit.exporting.preparing import prepare
    from deploykit.exporting.temperature import Stages, scale_by_temperature
    from deploykit.exporting.weight_only import check_integers_asked
    from deploykit.quantize.in_float import leave_in_float
    from deploykit.quantize.settling import Runners
    from deploykit.quantize.temperature import last_layer
    from deploykit.reference.integer import ReferenceRunner
    from deploykit.runtime import ort
    from deploykit.verify.formats import WrittenRunner, formats_for
    from deploykit.verify.integer_form import integer_form

    progress = progress or Silent()
    check_integers_asked(options)
    formats = formats_for(options.to, options.tflite_layout)
    runners = Runners(
        ort.OutputEvaluator(), ReferenceRunner(), [WrittenRunner(fmt) for fmt in formats]
    )
    prepared = prepare(source, options, integer_form, runners.evaluate, progress)
    with progress.stage("plan quantization") as advance:
        in_integers = integer_form(prepared.balanced, options.quantization.batch)
        asked = options.quantization.bits
        lowered = leave_in_float(in_integers, asked.in_float, asked)
        if options.temperature is not None:
            last_layer(lowered)
        plan, allocation = quantized(prepared, lowered, options, runners, formats, advance)
    temperature = None
    if options.temperature is not None and prepared.fitting is not None:
        with progress.stage("fit temperature") as advance:
            stages, temperature = scale_by_temperature(
                options.temperature, prepared.fitting,
                Stages(prepared.entered, prepared.masked, prepared.balanced, lowered, plan),
                formats[0], advance,
            )  # fmt: skip
            prepared = replace(
                prepared, entered=stages.entered, masked=stages.masked, balanced=stages.balanced
            )
            lowered, plan = stages.lowered, stages.plan
    return Planned(prepared, lowered, plan, allocation, temperature, formats)


def quantized(
    prepared: Prepared,
    lowered: Network,
    options: ExportOptions,
    runners: Runners,
    formats: tuple[Format, ...],
    advance: Advance,
) -> tuple[QuantPlan, Allocation | None]:
    """The plan, at the bits that are given, or allocated first."""
    from deploykit.exporting.allocating import Writing, allocate_bits
    from deploykit.quantize.planning import plan_quantization

    asked = options.quantization
    if options.auto is None:
        return plan_quantization(lowered, prepared.samples, asked, runners, advance), None
    writing = Writing(runners, formats, options.metadata)
    return allocate_bits(prepared, lowered, asked, options.auto, writing, advance)


def export_bundle(
    source: Path, options: ExportOptions, out: Path, progress: Progress | None = None
) -> Bundle:
    """Plan, write, prove: a finished bundle in `out`.

    Raises a DeploykitError that says where, what and what next; then `out` is as it was before.
    """
    progress = progress or Silent()
    check_replaceable(out)
    if options.activations is Activations.FLOAT:
        return export_weight_only(source, options, out, progress)
    planned = plan_export(source, options, progress)
    prepared, lowered, plan = planned.prepared, planned.lowered, planned.plan
    entered, labelled = prepared.entered, prepared.labelled
    masked, balanced = prepared.masked, prepared.balanced

    from deploykit.quantize.apply import apply_plan
    from deploykit.verify.saturation import why_onnxruntime_differs

    with progress.stage("write files"):
        network = apply_plan(lowered, plan)
        check_rounding(network, lowered, plan)
        models = {
            fmt: fmt.describe(fmt.write(network), options.metadata) for fmt in planned.formats
        }
    with progress.stage("golden inputs"):
        golden = record_golden(
            entered, masked, network, labelled or prepared.samples, planned.temperature
        )
        check_floats(golden, masked, balanced, lowered)
    with progress.stage("prove parity") as advance:
        parity = prove_parity(models, network, golden, labelled, advance)
    with progress.stage("measure accuracy"):
        answers = measure_answers(entered, balanced, network, models, labelled, planned.temperature)

    diverging = [comparison for comparison in parity if comparison.total_differing]
    if diverging:
        worst = diverging[0]
        reason = why_onnxruntime_differs(network) if worst.runner == "onnxruntime" else ""
        raise ParityError(
            f"{worst.runner} and the reference disagree on {worst.total_differing} of "
            f"{worst.total_compared} integers, first in operator {worst.operator}; "
            f"{f'{reason}; ' if reason else ''}no bundle was written"
        )
    with progress.stage("write bundle"):
        outcome = Outcome(options, planned, network, models, golden, parity, answers)
        return write_bundle(out, bundle_files(outcome))


def export_weight_only(
    source: Path, options: ExportOptions, out: Path, progress: Progress
) -> Bundle:
    """The same where weights alone become integers."""
    from deploykit.exporting.preparing import prepare
    from deploykit.exporting.weight_only import as_it_is, evidence, plan_and_write
    from deploykit.exporting.weight_only_record import bundle_files
    from deploykit.runtime import ort

    evaluate = ort.OutputEvaluator()
    prepared = prepare(source, options, as_it_is, evaluate, progress)
    written = plan_and_write(prepared, options, evaluate, progress)
    proved = evidence(prepared, written, progress)
    with progress.stage("write bundle"):
        return write_bundle(out, bundle_files(prepared, options, written, proved))


def threshold_curve(
    source: Path, options: ExportOptions, progress: Progress | None = None
) -> ThresholdCurve:
    """Accuracy and size of a checkpoint along the threshold of its pruning rule; writes nothing."""
    entry = open_entry(source, options.entry, progress or Silent())
    if not isinstance(entry, CheckpointEntry):
        raise ConfigError("--dry-run runs along a pruning rule's threshold; an ONNX file has none")
    if options.eval_data is None:
        raise UsageError("--dry-run shows accuracy: give --eval-data labelled.npz")
    labelled = load_samples(options.eval_data, entry.inputs)

    from deploykit.exporting import threshold_curve as along

    return along.threshold_curve(entry, options.removal, labelled, progress or Silent())


def prune_file(
    source: Path,
    out: Path,
    options: PruneOptions,
    report: Path | None = None,
    progress: Progress | None = None,
) -> PrunedFile:
    """Read, prune, open the sizes again, prove, write: the same network with fewer channels.

    report: where to write the record as JSON, or None.

    Raises a DeploykitError that says where, what and what next; then `out` is as it was before.
    """
    progress = progress or Silent()
    check_writable(out, "--out", (source,))
    if report is not None:
        check_writable(report, "--report", (source, out))

    import onnx_ir as ir

    from deploykit.exporting.removing import few_inputs, zero_hidden
    from deploykit.exporting.restoration import restore
    from deploykit.graph.normalize import normalize
    from deploykit.graph.onnx_source import read_onnx
    from deploykit.graph.removal import remove_dead_channels
    from deploykit.reference.float import evaluate_outputs
    from deploykit.runtime.single_pass import run_once

    with progress.stage("read ONNX file"):
        read = read_onnx(source, options.input_shapes)
        check_writable(out, "--out", read.files)
    with progress.stage("fold batch norm and scales"):
        masked = normalize(read.network)
    quiet, hidden = masked, None
    if options.data is not None:
        with progress.stage("find what float32 hides"):
            some = few_inputs(options.data, read.specs)
            quiet, hidden = zero_hidden(masked, some, options.removal.tolerance)
    with progress.stage("remove channels"):
        pruned, removal = remove_dead_channels(quiet, evaluate_outputs, options.removal)
    with progress.stage("open sizes again"):
        restored = restore(read, ir.to_proto(pruned.model), run_once)
    with progress.stage("compare in ONNX Runtime"):
        data = as_file(read, restored.model)
        measured, kept_outputs = compare_files(read, data, run_once)
    with progress.stage("write file"):
        done = PrunedFile(
            read, out, options.removal, hidden, removal, restored, measured, kept_outputs, len(data)
        )
        write_file(out, data)
        if report is not None:
            write_file(report, json_bytes(prune_record(done)))
    return done
