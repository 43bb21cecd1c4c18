"""The stages of an export that quantizes weights alone, and what such an export cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.bundle import Golden
from deploykit.errors import ConfigError, DataError, ParityError, UnsupportedOperatorError
from deploykit.exporting.evidence import check_floats, judged_answers, outputs_in_float
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.preparing import Prepared
from deploykit.graph.edit import output_names
from deploykit.quantize.weight_only import check_linears, plan_weight_only
from deploykit.quantize.whole_numbers import index_tensors
from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import count_samples, named_inputs, some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.linears import with_weights
from deploykit.spec.network import FloatEvaluator, Network, input_names
from deploykit.spec.parity import Answers, Verdict
from deploykit.spec.progress import Progress
from deploykit.spec.quantized import Batch, Quantization
from deploykit.spec.weight_only import Activations, WeightOnlyPlan
from deploykit.spec.whole_numbers import whole_inputs, whole_outputs
from deploykit.verify.golden import REAL, Ranges, full_indices, golden_inputs
from deploykit.verify.weight_only import steps_apart
from deploykit.verify.weight_only_files import (
    FORMATS,
    PlannedLinear,
    WeightOnlyFormat,
    compare_weights,
)
from deploykit.verify.weight_only_nearness import (
    Nearness,
    farthest_rows,
    measure_nearness,
    products_apart,
    run_file,
)

STEPS = 255
LOW_SQNR_DB = 15.0
"""Of a runtime against the reference, under which the layer that costs most is looked for."""


def check_integers_asked(options: ExportOptions) -> None:
    """Raise ConfigError where the options ask for weights alone in integers."""
    if options.activations is Activations.FLOAT:
        raise ConfigError(
            "--activations float has no plan of bits to show: leave --dry-run out, or --plan and "
            "--activations float"
        )


def as_it_is(network: Network, batch: Batch) -> Network:
    """The graph that weights alone are quantized in.

    Raises QuantizationError or UnsupportedOperatorError where they cannot be.
    """
    check_linears(network)
    if whole_outputs(network):
        raise UnsupportedOperatorError(
            f"--activations float: the output {whole_outputs(network)[0].name!r} is a whole "
            "number, which hides how near the runtimes are; end the network before it"
        )
    return network


@dataclass(frozen=True)
class Written:
    """restored: the float network with the plan's integers, times their scales, as weights."""

    plan: WeightOnlyPlan
    restored: Network
    models: Mapping[WeightOnlyFormat, bytes]


def plan_and_write(
    prepared: Prepared, options: ExportOptions, evaluate: FloatEvaluator, progress: Progress
) -> Written:
    """Integers for every linear, and both files with them."""
    network = prepared.balanced
    with progress.stage("plan quantization") as advance:
        plan = plan_weight_only(
            network, prepared.samples, options.quantization, options.block_size, evaluate, advance
        )
    with progress.stage("write files"):
        formats = [FORMATS[key] for key in options.to]
        models = {fmt: fmt.describe(fmt.write(network, plan), options.metadata) for fmt in formats}
        planned = {name: PlannedLinear.of(layer) for name, layer in plan.layers.items()}
        for fmt, data in models.items():
            integers, other = compare_weights(fmt, fmt.read(data), planned, network)
            if other is not None:
                raise ParityError(f"{fmt.file}, read back: layer {other[0]}: {other[1]}")
            apart = steps_apart(fmt, integers, planned, network, plan.rounding)
            if apart.verdict is Verdict.FAILED:
                raise ParityError(f"{apart.compared}: {apart.detail}; no bundle was written")
    weights = {name: layer.dequantized for name, layer in plan.layers.items()}
    return Written(plan, with_weights(network, weights), models)


@dataclass(frozen=True)
class Evidence:
    """near: by file, on the real golden inputs. answers: None without labels.

    coarse: by file that lies far from the reference, the layer that rounding its rows to int8
    alone takes farthest.
    """

    golden: Golden
    near: Mapping[str, Nearness]
    coarse: Mapping[str, str]
    answers: Answers | None


def evidence(prepared: Prepared, written: Written, progress: Progress) -> Evidence:
    """Golden inputs and outputs, how near the runtimes are to them, and accuracy.

    Raises ParityError where one is farther than rounding rows to int8 explains, or where a file
    computes something else beside.
    """
    with progress.stage("golden inputs"):
        golden = _golden(prepared, written.restored)
        check_floats(golden, prepared.masked, prepared.balanced, prepared.balanced)
    with progress.stage("prove parity"):
        near = _proved(written, golden)
        coarse = {
            fmt.file: farthest_rows(fmt, data, written.restored, tuple(written.plan.layers), golden)
            for fmt, data in written.models.items()
            if near[fmt.file].sqnr_db < LOW_SQNR_DB
        }
    with progress.stage("measure accuracy"):
        answers = _answers(prepared, written)
    return Evidence(golden, near, coarse, answers)


def _proved(written: Written, golden: Golden) -> dict[str, Nearness]:
    names = input_names(written.restored)
    for fmt, data in written.models.items():
        apart = products_apart(fmt, data, names, golden)
        if not apart.holds:
            raise ParityError(
                f"{fmt.file}, its integers multiplied out, is {apart.difference:.1e} from the "
                f"reference in {fmt.on_floats} (output {apart.output}), where float rounding "
                f"explains {apart.most:.0e}; no bundle was written: please report the network"
            )
    near = measure_nearness(written.restored, tuple(written.plan.layers), written.models, golden)
    for file, found in near.items():
        if not found.holds:
            raise ParityError(
                f"{file} is {found.sqnr_db:.1f} dB from the reference (output {found.output}), "
                f"where rounding rows of activations to int8 explains {found.expected_db:.1f}; no "
                "bundle was written"
            )
    return near


def _golden(prepared: Prepared, restored: Network) -> Golden:
    samples = prepared.labelled or prepared.samples
    inputs, full = golden_inputs(samples, _ranges(prepared)), full_indices()
    entered, masked = prepared.entered, prepared.masked
    labels = None
    if samples.labels is not None:
        labels = np.take(samples.labels, np.arange(REAL), mode="wrap").astype(np.int64)
    # float32, because the last bits of float64 sums depend on how many threads added them up.
    outputs = {
        name: values.astype(np.float32)
        for name, values in evaluate_outputs(restored, inputs).items()
    }
    kept = joined_outputs(
        evaluate_outputs(masked, some_samples(inputs, full)), output_names(masked), len(full)
    ).astype(np.float32)
    return Golden(
        inputs, REAL, full, entered.unpruned(inputs), kept, {}, outputs, labels,
        None if entered.mean_forward is None else entered.mean_forward(inputs),
    )  # fmt: skip


def _ranges(prepared: Prepared) -> Ranges:
    """What calibration samples hold, as int8 would."""
    network = prepared.balanced
    whole = index_tensors(network) if whole_inputs(network) else {}
    given = named_inputs(prepared.samples.inputs, input_names(network))
    return {
        name: whole[name] if name in whole else _range(values) for name, values in given.items()
    }


def _range(values: AnyArray) -> Quantization:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if high == low:
        raise DataError("an input is zero in all calibration samples; give real ones")
    scale = float(np.float32((high - low) / STEPS))
    return Quantization(scale, round(-low / scale) - 128)


def _answers(prepared: Prepared, written: Written) -> Answers | None:
    labelled, network = prepared.labelled, prepared.balanced
    if labelled is None or labelled.labels is None:
        return None
    count = count_samples(labelled.inputs)
    outputs = outputs_in_float(prepared.entered, network, labelled.inputs, count)
    for fmt, data in written.models.items():
        outputs[fmt.file] = run_file(fmt, data, network, labelled.inputs, count)
    return judged_answers(outputs, labelled.labels)
