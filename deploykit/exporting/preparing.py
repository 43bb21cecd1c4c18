"""What every export does before anything is quantized: enter, fold, remove, equalize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploykit.exporting.batch import check_apart, check_batch, check_fixed, check_samples
from deploykit.exporting.calibration_fit import CalibrationFit, calibration_fit
from deploykit.exporting.data import check_varied, load_samples
from deploykit.exporting.description import check_labels, check_pixels
from deploykit.exporting.entry import Entered, open_entry
from deploykit.exporting.equalizing import equalized
from deploykit.exporting.held_out import check_held_out
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.removing import HIDING_INPUTS, largest_values, zero_hidden
from deploykit.exporting.shared_samples import in_both
from deploykit.exporting.temperature import FittingData, fitting_data
from deploykit.exporting.token_ids import check_ids
from deploykit.graph.normalize import normalize
from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate_outputs
from deploykit.runtime import ort
from deploykit.spec.equalization import EqualizationReport
from deploykit.spec.inputs import some_samples
from deploykit.spec.negligible import Negligible
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.progress import Progress
from deploykit.spec.quantized import Batch
from deploykit.spec.removal import RemovalReport
from deploykit.spec.samples import Samples

Form = Callable[[Network, Batch], Network]
"""The graph that quantization will follow; raises where there is none."""


@dataclass(frozen=True)
class Prepared:
    """A float network, folded and pruned, with the data that the rest of an export asks for.

    masked: with the gates closed and nothing removed. balanced: pruned, its channels equalized
    where that was asked for. fitting: None where no temperature was asked for. in_calibration: how
    many of the labelled samples are calibration's too.
    """

    entered: Entered
    samples: Samples
    labelled: Samples | None
    fitting: FittingData | None
    fit: CalibrationFit | None
    masked: Network
    hidden: Negligible | None
    balanced: Network
    removal: RemovalReport
    equalization: EqualizationReport | None
    in_calibration: int


def prepare(
    source: Path,
    options: ExportOptions,
    form: Form,
    evaluate: FloatEvaluator,
    progress: Progress,
) -> Prepared:
    """A checkpoint enters by being loaded, folded and captured, an ONNX file by being read."""
    entry = open_entry(source, options.entry, progress)
    check_batch(entry.inputs, options.quantization.batch)
    check_pixels(options.metadata, entry.inputs)
    samples = load_samples(options.data, entry.inputs)
    check_varied(options.data, samples)
    labelled, in_calibration = None, 0
    if options.eval_data is not None:
        labelled = load_samples(options.eval_data, entry.inputs)
        in_calibration = in_both(labelled.inputs, samples.inputs)
        check_held_out(options, samples, labelled, in_calibration)
    fitting = None
    if options.temperature is not None:
        fitting = fitting_data(options.temperature, entry.inputs, samples, labelled)

    entered = entry.enter(samples, labelled, progress)
    check_ids(entered.network, samples, "--data")
    if labelled is not None:
        check_ids(entered.network, labelled, "--eval-data")
    if fitting is not None:
        check_ids(entered.network, fitting.fitted, "--temperature-data")
    with progress.stage("compare data with training"):
        fit = calibration_fit(entered.network, samples, options.metadata)
    with progress.stage("fold batch norm and scales"):
        check_samples(entered.network, options.quantization.batch)
        check_apart(entered.together, samples.inputs, options.quantization.batch)
        masked = normalize(entered.network)
        # What quantization cannot follow ends it here, early.
        formed = form(masked, options.quantization.batch)
        check_labels(options.metadata, formed)
        check_fixed(formed)
    with progress.stage("find what float32 hides"):
        some = some_samples(samples.inputs, slice(HIDING_INPUTS))
        quiet, hidden = zero_hidden(masked, some, options.removal.tolerance)
    with progress.stage("remove channels"):
        ranges = largest_values(ort.evaluate(quiet, some))
        pruned, removal = remove_dead_channels(quiet, evaluate_outputs, options.removal, ranges)
    with progress.stage("equalize channels"):
        balanced, equalization = equalized(
            pruned, options.equalization, options.quantization.bits, samples.inputs, evaluate
        )
    return Prepared(
        entered, samples, labelled, fitting, fit, masked, hidden, balanced, removal, equalization,
        in_calibration,
    )  # fmt: skip
