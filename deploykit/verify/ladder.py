"""`deploykit verify`: check a bundle from its files alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deploykit.bundle import (
    FLOAT_MODEL,
    GOLDEN,
    PLAN,
    Bundle,
    Golden,
    load_golden,
    read_bundle,
    read_record,
)
from deploykit.emit.onnx_file import read_float_onnx
from deploykit.errors import IntegrityError
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import Tensors
from deploykit.spec.inputs import named_inputs, some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network, input_names, static_shape
from deploykit.spec.parity import ParityReport, Step
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.verify.answers import COMPARED as ANSWERS
from deploykit.verify.answers import answers_step, check_labelled, outputs_of_files, unchecked
from deploykit.verify.attempt import attempt
from deploykit.verify.float_stages import (
    PRUNED,
    TEMPERED,
    lowered_step,
    mean_forward_step,
    pruned_step,
    temperature_step,
)
from deploykit.verify.formats import Format
from deploykit.verify.integer_form import planned_form
from deploykit.verify.integer_steps import INTEGER, Announce, integer_steps, read_back
from deploykit.verify.manifest import COMPARED, given_by_floats, given_by_integers, manifest_step
from deploykit.verify.opened import of_weights_alone, read_plan
from deploykit.verify.weight_only import weight_only_steps


def verify_bundle(
    path: Path, announce: Announce = lambda text: None, labelled: Samples | None = None
) -> ParityReport:
    """Climb the ladder, steps 1 to 4, on the files of a bundle.

    labelled: the export's --eval-data, without which the accuracy that it measured is unchecked.

    Raises BundleError or IntegrityError where it is not a whole bundle; what disagrees is a failed
    step, what cannot be tried here is a skipped one.
    """
    announce("hashes")
    bundle = read_bundle(path)
    golden = load_golden(bundle.file(GOLDEN))
    stated = read_record(bundle.file(PLAN))
    if of_weights_alone(stated):
        return ParityReport(tuple(weight_only_steps(bundle, golden, stated, announce, labelled)))
    plan = read_plan(bundle)
    announce("float graph")
    steps = [mean_forward_step(golden, bundle), *_temperature(golden, bundle, plan)]
    float_model = attempt(2, PRUNED, partial(_load_float, bundle))
    evaluated = (
        float_model
        if isinstance(float_model, Step)
        else attempt(2, PRUNED, partial(_float_tensors, float_model, golden))
    )
    lowered: Network | Step
    floats: Tensors = {}
    if isinstance(float_model, Step):
        lowered = float_model
        steps.append(float_model)
    elif isinstance(evaluated, Step):
        lowered = evaluated
        steps.append(evaluated)
    else:
        floats, outputs = evaluated
        steps.append(pruned_step(golden, joined_outputs(floats, outputs, len(golden.full))))
        lowered = attempt(3, INTEGER, partial(planned_form, float_model, plan))
        if isinstance(lowered, Step):
            steps.append(lowered)
        elif lowered.model is not float_model.model:
            floats, _ = _float_tensors(lowered, golden)
            found = joined_outputs(floats, outputs, len(golden.full))
            steps.append(lowered_step(golden, found))
    read = read_back(bundle, plan, lowered, announce)
    steps.extend(integer_steps(bundle, golden, plan, lowered, floats, read, announce))
    networks = read.as_planned(plan)
    steps.append(
        attempt(4, COMPARED, partial(_manifest, bundle, plan, float_model, lowered, networks))
    )
    if labelled is None:
        steps.extend(unchecked(bundle.manifest))
    else:
        announce("labelled data")
        check_labelled(bundle.manifest, labelled)
        again = partial(_answers, bundle, float_model, networks, labelled)
        steps.append(attempt(4, ANSWERS, again))
    return ParityReport(tuple(steps))


def _temperature(golden: Golden, bundle: Bundle, plan: Mapping[str, Any]) -> list[Step]:
    found = attempt(1, TEMPERED, lambda: list(temperature_step(golden, bundle, plan)))
    return [found] if isinstance(found, Step) else found


def _answers(
    bundle: Bundle,
    float_model: Network | Step,
    networks: Mapping[Format, QuantizedNetwork],
    labelled: Samples,
) -> Step:
    outputs = outputs_of_files(bundle, float_model, networks, labelled)
    return answers_step(bundle.manifest, labelled, outputs)


def _manifest(
    bundle: Bundle,
    plan: Mapping[str, Any],
    float_model: Network | Step,
    lowered: Network | Step,
    networks: Mapping[Format, QuantizedNetwork],
) -> Step:
    """What a file that is not the plan's gives is told elsewhere."""
    given = [*given_by_integers(bundle, plan, networks)]
    if not isinstance(float_model, Step) and not isinstance(lowered, Step):
        given.append(given_by_floats(plan, float_model, lowered))
    return manifest_step(bundle, given)


def _load_float(bundle: Bundle) -> Network:
    return read_float_onnx(bundle.file(FLOAT_MODEL).read_bytes())


def _float_tensors(network: Network, golden: Golden) -> tuple[Tensors, tuple[str, ...]]:
    """Every tensor of the float model on the golden inputs in `full`, and its outputs' names."""
    graph = network.model.graph
    given = named_inputs(golden.inputs, input_names(network))
    for port in graph.inputs:
        declared, held = static_shape(port), given[str(port.name)].shape
        if declared is None or declared[1:] != held[1:]:
            raise IntegrityError(
                f"{FLOAT_MODEL} declares the input {port.name} {declared} where golden inputs are "
                f"{held}"
            )
    inputs = some_samples(golden.inputs, golden.full)
    return evaluate(network, inputs), output_names(network)
