"""The ladder of a bundle whose weights alone are integers.

Steps 1 and 2 are those of every bundle. Step 3 holds the network with rounded weights against the
float one, step 4 each file: its integers against the plan, its weights against the floats, what it
computes in the reference against the recorded outputs, and its runtime against the reference, which
multiplies rows of int8 and is near it, not equal (verify.weight_only_nearness). What a file
computes beside its integers is held against the recorded outputs up to float rounding: with the
integers multiplied out, model.onnx in the reference, and model.tflite, of whose operators there is
no other reader, in LiteRT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from deploykit.bundle import FLOAT_MODEL, Bundle, Golden
from deploykit.emit.onnx_file import read_float_onnx
from deploykit.errors import IntegrityError
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import Int8Array, Tensors
from deploykit.spec.inputs import some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.linears import linear_weight, linears, with_weights
from deploykit.spec.network import Network, input_names
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.plan import Rounding
from deploykit.spec.quantized import int_range
from deploykit.spec.samples import Samples
from deploykit.spec.weight_only import BITS, by_input, products
from deploykit.verify.answers import COMPARED as ANSWERS
from deploykit.verify.answers import (
    OTHER_STEPS,
    OTHER_SUMS,
    STAGE_OF_FLOATS,
    Answered,
    answers_step,
    check_labelled,
    unchecked,
)
from deploykit.verify.attempt import attempt, told
from deploykit.verify.float_stages import mean_forward_step, pruned_step, verdict
from deploykit.verify.manifest import COMPARED, given_by_linears, manifest_step
from deploykit.verify.metrics import accuracy, sqnr_db
from deploykit.verify.weight_only_files import (
    FORMATS,
    PlannedLinear,
    WeightOnlyFormat,
    compare_weights,
)
from deploykit.verify.weight_only_nearness import (
    first_samples,
    measure_nearness,
    products_apart,
    run_file,
)

WEIGHTS = "float / integer weights"
SQNR_TOLERANCE_DB = 0.1
ROUNDING_DB = 100.0
"""SQNR above which float32 itself is the noise."""


def planned_linears(plan: Mapping[str, Any]) -> dict[str, PlannedLinear]:
    """What plan.json says of every weight.

    Raises IntegrityError where that is none.
    """
    try:
        return {
            str(name): PlannedLinear(
                _bits(layer["weight"]["bits"]),
                np.asarray(layer["weight"]["scale"], np.float32),
                str(layer["weight"]["values_sha256"]),
                {str(key): str(held) for key, held in layer["weight"]["carrier"].items()},
            )
            for name, layer in plan["layers"].items()
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"plan.json is not a plan of deploykit ({type(error).__name__}: {error}); export the "
            "bundle again"
        ) from error


def _bits(stated: object) -> int:
    """Raises ValueError where no weight has so many."""
    if stated not in BITS or not isinstance(stated, int):
        raise ValueError(f"weights of {stated!r} bits")
    return stated


def _rounding(plan: Mapping[str, Any]) -> Rounding:
    try:
        return Rounding(plan.get("rounding"))
    except ValueError as error:
        raise IntegrityError(
            f"plan.json is not a plan of deploykit ({error}); export the bundle again"
        ) from error


def weight_only_steps(
    bundle: Bundle,
    golden: Golden,
    plan: Mapping[str, Any],
    announce: Any,
    labelled: Samples | None = None,
) -> Iterator[Step]:
    """Every step, on the bundle's files alone, and on labelled data where they are given."""
    planned, rounding = planned_linears(plan), _rounding(plan)
    yield mean_forward_step(golden, bundle)
    announce("float graph")
    try:
        network = read_float_onnx(bundle.file(FLOAT_MODEL).read_bytes())
        floats = evaluate_outputs(network, golden.inputs)
    except Exception as error:
        yield Step(2, FLOAT_MODEL, Verdict.FAILED, told(error))
        return
    names = output_names(network)
    full = evaluate_outputs(network, some_samples(golden.inputs, golden.full))
    yield pruned_step(golden, joined_outputs(full, names, len(golden.full)))
    yield _rounded(bundle, golden, floats, names)
    for fmt in (FORMATS[key] for key in FORMATS if FORMATS[key].file in bundle.models()):
        announce(fmt.file)
        data = bundle.file(fmt.file).read_bytes()
        climb = partial(_file_steps, fmt, data, golden, rounding, planned, network)
        try:
            yield from climb()
        except Exception as error:
            yield Step(4, f"{fmt.file}, read back / plan", Verdict.FAILED, told(error))
    yield attempt(
        4, COMPARED, lambda: manifest_step(bundle, given_by_linears(bundle, plan, network))
    )
    if labelled is None:
        yield from unchecked(bundle.manifest)
        return
    check_labelled(bundle.manifest, labelled)
    yield attempt(4, ANSWERS, partial(_answers, bundle, network, labelled))


def _answers(bundle: Bundle, network: Network, labelled: Samples) -> Step:
    inputs, count = labelled.inputs, len(labelled)
    floats = joined_outputs(evaluate_outputs(network, inputs), output_names(network), count)
    outputs = {STAGE_OF_FLOATS: Answered(floats, OTHER_SUMS)}
    for fmt in (FORMATS[key] for key in FORMATS if FORMATS[key].file in bundle.models()):
        if fmt.version() is not None:
            data = bundle.file(fmt.file).read_bytes()
            found = run_file(fmt, data, network, inputs, count)
            outputs[fmt.file] = Answered(found, OTHER_STEPS)
    return answers_step(bundle.manifest, labelled, outputs)


def _rounded(bundle: Bundle, golden: Golden, floats: Tensors, names: tuple[str, ...]) -> Step:
    """What rounding the weights did, as recorded at export."""
    real = joined_outputs(first_samples(floats, golden), names, golden.real)
    recorded = joined_outputs(first_samples(golden.outputs, golden), names, golden.real)
    found, stated = sqnr_db(real, recorded), bundle.manifest.get("weights_sqnr_db")
    try:
        known = math.inf if stated is None else float(stated)  # null: no error at all
    except (TypeError, ValueError):
        detail = f"the manifest states {stated!r} for weights_sqnr_db, which is no number"
        return Step(3, WEIGHTS, Verdict.FAILED, detail)
    detail = f"output SQNR {found:.1f} dB"
    if golden.labels is not None and len(names) == 1:
        detail += f", accuracy {accuracy(recorded, golden.labels):.3f} on {golden.real} samples"
    apart = min(found, ROUNDING_DB), min(known, ROUNDING_DB)
    if not math.isclose(*apart, abs_tol=SQNR_TOLERANCE_DB):
        return Step(3, WEIGHTS, Verdict.FAILED, f"{detail}, where the manifest states {stated}")
    return Step(3, WEIGHTS, Verdict.PASSED, detail)


def _file_steps(
    fmt: WeightOnlyFormat,
    data: bytes,
    golden: Golden,
    rounding: Rounding,
    planned: Mapping[str, PlannedLinear],
    network: Network,
) -> Iterator[Step]:
    compared = f"{fmt.file}, read back / plan"
    integers, other = compare_weights(fmt, fmt.read(data), planned, network)
    if other is not None:
        layer, what = other
        yield Step(4, compared, Verdict.FAILED, f"operator {layer}: {what}", layer)
        return
    count = sum(values.size for values in integers.values())
    yield Step(4, compared, Verdict.PASSED, f"{count:,} integers of {len(integers)} layers equal")
    yield steps_apart(fmt, integers, planned, network, rounding)
    products_step = f"{fmt.file}, integers as floats, in {fmt.on_floats} / golden"
    compared = f"{fmt.file} in {fmt.runtime} / reference"
    version = fmt.version()
    reason = f"{fmt.runtime} cannot be imported here; install it and verify again"
    if version is None and fmt.on_floats == fmt.runtime:
        yield Step(4, products_step, Verdict.SKIPPED, reason)
    else:
        apart = products_apart(fmt, data, input_names(network), golden)
        of = f", of output {apart.output}" if len(golden.outputs) > 1 else ""
        detail = f"relative difference {apart.difference:.1e}{of}, at most {apart.most:.0e}"
        yield Step(4, products_step, verdict(apart.holds), detail)
    if version is None:
        yield Step(4, compared, Verdict.SKIPPED, reason)
        return
    real = {name: products(values, planned[name].scale) for name, values in integers.items()}
    restored = with_weights(network, real)
    near = measure_nearness(restored, tuple(planned), {fmt: data}, golden)[fmt.file]
    which = f"output {near.output}: SQNR" if len(golden.outputs) > 1 else "output SQNR"
    yield Step(
        4, compared, verdict(near.holds),
        f"{which} {near.sqnr_db:.1f} dB, at least {near.least_db:.1f}: rounding rows of "
        f"activations to int8 explains {near.expected_db:.1f} ({golden.real} inputs, {version})",
    )  # fmt: skip


def steps_apart(
    fmt: WeightOnlyFormat,
    integers: Mapping[str, Int8Array],
    planned: Mapping[str, PlannedLinear],
    network: Network,
    rounding: Rounding,
) -> Step:
    """Integers against float weights, those that the range clips against its ends."""
    compared = f"{fmt.file}, read back / float weights"
    nodes, worst, where = linears(network), 0.0, None
    for name, values in integers.items():
        weight = linear_weight(nodes[name])
        assert weight is not None
        _, highest = int_range(planned[name].bits)
        steps = weight / by_input(planned[name].scale, weight.shape[1]).astype(np.float64)
        apart = float(np.abs(np.clip(steps, -highest, highest) - values).max())
        if apart > worst:
            worst, where = apart, name
    detail = f"every weight within {worst:.2f} steps of its float value"
    if worst <= rounding.reach + 1e-3:
        return Step(4, compared, Verdict.PASSED, detail)
    detail = f"operator {where}: a weight is {worst:.2f} steps from its float value"
    return Step(4, compared, Verdict.FAILED, f"{detail}, where {rounding.reach} are allowed", where)
