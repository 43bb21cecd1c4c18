"""What the bundle claims about itself, measured: golden outputs, parity, accuracy by stage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploykit.bundle import Golden
from deploykit.errors import ParityError
from deploykit.exporting.contents import plan_record
from deploykit.exporting.entry import Entered
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.temperature import Temperature
from deploykit.graph.certificate import same_graph
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate_outputs
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.inputs import GraphInputs, joined_samples, named_inputs, some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network, input_names
from deploykit.spec.parity import Accuracy, Answers, Confidence, IntegerComparison
from deploykit.spec.plan import QuantPlan
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.verify.confidence import confidence_by_stage
from deploykit.verify.float_stages import check_float_stages
from deploykit.verify.formats import Format, port_inputs, real_output
from deploykit.verify.golden import (
    GoldenFloats,
    full_indices,
    golden_inputs,
    input_ranges,
    make_golden,
)
from deploykit.verify.integers import compare_with_runtimes
from deploykit.verify.metrics import accuracy
from deploykit.verify.rounding import farthest_rounding


def record_golden(
    entered: Entered,
    masked: Network,
    network: QuantizedNetwork,
    samples: Samples,
    temperature: Temperature | None = None,
) -> Golden:
    """Golden inputs with what each stage gives for them.

    samples: where the real ones come from, with labels if known. temperature: of every stage given.
    """
    inputs, full = golden_inputs(samples, input_ranges(network)), full_indices()
    floats = GoldenFloats(
        folded=entered.unpruned(inputs),
        # float32, because the last bits of float64 sums depend on how many threads added them up.
        masked=joined_outputs(
            evaluate_outputs(masked, some_samples(inputs, full)), output_names(masked), len(full)
        ).astype(np.float32),
        mean_forward=None if entered.mean_forward is None else entered.mean_forward(inputs),
        untempered=None if temperature is None else temperature.without(some_samples(inputs, full)),
    )
    return make_golden(network, samples, inputs, floats)


def check_floats(golden: Golden, masked: Network, pruned: Network, lowered: Network) -> None:
    """Raise RemovalError or GraphError where a float stage is not what the one before it is."""
    inputs, count = some_samples(golden.inputs, golden.full), len(golden.full)
    left = golden.masked
    if not same_graph(masked, pruned):
        left = joined_outputs(evaluate_outputs(pruned, inputs), output_names(pruned), count)
    named = named_inputs(inputs, input_names(lowered))
    found = joined_outputs(ort.run(model_bytes(lowered), named), output_names(lowered), count)
    check_float_stages(golden, left, found)


def check_rounding(network: QuantizedNetwork, lowered: Network, plan: QuantPlan) -> None:
    """Raise ParityError where a written integer is farther from its float than rounding takes it.

    Files and reference agree on such integers too, as both have them from the network.
    """
    found = farthest_rounding(network, lowered.model, plan_record(plan, network))
    if found.share > 1.0:
        raise ParityError(
            f"{found}; no bundle was written: this is a defect of deploykit, please report the "
            "network"
        )


def prove_parity(
    models: Mapping[Format, bytes],
    network: QuantizedNetwork,
    golden: Golden,
    labelled: Samples | None,
    advance: Advance,
) -> tuple[IntegerComparison, ...]:
    """Every tensor of every runtime against the reference, from float input on.

    On the golden inputs that are followed tensor by tensor, and on all labelled samples.
    """
    inputs = some_samples(golden.inputs, golden.full)
    if labelled is not None:
        inputs = joined_samples(inputs, labelled.inputs)
    return compare_with_runtimes(models, network, inputs, advance, golden.integers)


def measure_answers(
    entered: Entered,
    pruned: Network,
    network: QuantizedNetwork,
    models: Mapping[Format, bytes],
    labelled: Samples | None,
    temperature: Temperature | None,
) -> Answers | None:
    """Accuracy and confidence by stage on the labelled samples; None without labels."""
    if labelled is None or labelled.labels is None:
        return None
    labels = labelled.labels
    outputs = outputs_in_float(entered, pruned, labelled.inputs, len(labels))
    for fmt, data in models.items():
        raw = fmt.run_outputs(data, network, port_inputs(network, labelled.inputs))
        (port,) = network.outputs
        outputs[fmt.file] = real_output(network, port, raw)
    return judged_answers(outputs, labels, temperature)


def judged_answers(
    outputs: Tensors, labels: AnyArray, temperature: Temperature | None = None
) -> Answers:
    """Accuracy and confidence of outputs by stage."""
    found = Accuracy(
        len(labels), {stage: accuracy(values, labels) for stage, values in outputs.items()}
    )
    judged: AnyArray | slice = slice(None)
    if temperature is not None and temperature.judged is not None:
        judged = temperature.judged
    some = {stage: values[judged] for stage, values in outputs.items()}
    after = confidence_by_stage(some, labels[judged])
    if not after:
        return Answers(found)
    before = None
    if temperature is not None:
        before = confidence_by_stage(some, labels[judged], temperature.value)
    return Answers(found, Confidence(len(labels[judged]), after, before))


def outputs_in_float(
    entered: Entered, pruned: Network, inputs: GraphInputs, count: int
) -> dict[str, AnyArray]:
    """By stage before quantization, all outputs of `count` samples, joined."""
    outputs: dict[str, AnyArray] = {}
    if entered.mean is not None:
        outputs["mean"] = entered.mean(inputs)
    outputs[entered.stage] = entered.unpruned(inputs)
    floats = ort.run(model_bytes(pruned), named_inputs(inputs, input_names(pruned)))
    outputs["pruned"] = joined_outputs(floats, output_names(pruned), count)
    return outputs
