"""The layers of an export in manifest.json: sizes, scales, costs, noise and kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deploykit.exporting.outcome import Outcome
from deploykit.graph.cost import LayerCost, layer_costs
from deploykit.runtime import ort
from deploykit.spec.by_sample import of_samples
from deploykit.spec.inputs import some_samples
from deploykit.spec.plan import LayerPlan
from deploykit.spec.removal import RemovalReport, TensorRemoval
from deploykit.spec.stem import stem_forms
from deploykit.verify.metrics import sqnr_by_tensor
from deploykit.verify.weight_record import layer_storage

WHOLE_BYTES = 4
"""Of a whole number."""


def layer_sqnr(outcome: Outcome) -> dict[str, float]:
    """SQNR by tensor on the real ones of the golden inputs whose integers are all kept."""
    golden = outcome.golden
    real = golden.full < golden.real
    floats = ort.evaluate(outcome.planned.lowered, some_samples(golden.inputs, golden.full[real]))
    count = len(golden.full)
    integers = {name: of_samples(values, real, count) for name, values in golden.integers.items()}
    return sqnr_by_tensor(outcome.network, floats, integers)


def layer_records(outcome: Outcome, sqnr: Mapping[str, float]) -> list[dict[str, Any]]:
    """One entry per integer operator."""
    kernels = {
        fmt.runtime: fmt.kernels(data, outcome.network) for fmt, data in outcome.models.items()
    }
    costs = {cost.name: cost for cost in layer_costs(outcome.planned.lowered.model)}
    removals = {entry.operator: entry for entry in outcome.planned.prepared.removal.tensors}
    keys = [fmt.key for fmt in outcome.models]
    stored = layer_storage(outcome.network, keys)
    forms = stem_forms(outcome.network)
    return [
        {
            "name": layer.name,
            "operator": layer.operator,
            **({"forms": forms[layer.output]} if layer.output in forms else {}),
            **_computed(outcome, layer),
            **_channels(outcome, layer, removals.get(layer.name)),
            **_dead_channels(outcome.planned.prepared.removal, removals.get(layer.name)),
            **_numbers(outcome, layer, costs.get(layer.name)),
            "sqnr_db": decibels(sqnr[layer.output]) if layer.output in sqnr else None,
            "stored": stored.get(layer.output, {}),
            "kernels": {runtime: by.get(layer.output) for runtime, by in kernels.items()},
        }
        for layer in outcome.planned.plan.layers
    ]


def _computed(outcome: Outcome, layer: LayerPlan) -> dict[str, list[str]]:
    """The float operators of an island, in running order; layers that the user left there."""
    if layer.operator != "Island":
        return {}
    inside = set(layer.nodes)
    found = {
        "in_float": [
            node.op_type for node in outcome.planned.lowered.model.graph if node.name in inside
        ]
    }
    left = [name for name in outcome.planned.plan.in_float if name in inside]
    return {**found, "left_in_float": left} if left else found


def _channels(outcome: Outcome, layer: LayerPlan, removal: TensorRemoval | None) -> dict[str, int]:
    shape = outcome.network.shape(layer.output)
    channels = -1 if layer.operator == "Embedding" else 1  # its rows lie last
    now = shape[channels] if len(shape) > 1 else 1
    before = now if removal is None else removal.channels_before
    return {"channels_before": before, "channels_after": now}


def _dead_channels(report: RemovalReport, removal: TensorRemoval | None) -> dict[str, int]:
    """Dead channels in a layer, kept or added for the width that the alignment asks for."""
    if removal is None:
        return {}
    dead = sum(
        block.width - block.needed for block in report.widened if removal.tensor in block.tensors
    )
    return {"dead_channels": dead} if dead else {}


def _numbers(outcome: Outcome, layer: LayerPlan, cost: LayerCost | None) -> dict[str, Any]:
    """Bits, scales, MACs, and bytes moved: activations read and written, weights and biases."""
    into = outcome.planned.plan.tensors.get(layer.output)
    touched = [*layer.inputs, layer.output]
    whole = [name for name in touched if name in outcome.network.indices]
    activation_bytes = sum(math.prod(outcome.network.shape(name)) for name in touched)
    index_bytes = (WHOLE_BYTES - 1) * sum(math.prod(outcome.network.shape(name)) for name in whole)
    weight, bias = layer.weight, layer.bias
    weight_bytes = 0 if weight is None else weight.values.size  # of int8
    bias_bytes = 0 if bias is None else 4 * bias.size
    return {
        "bits": None if weight is None else weight.bits,
        "output_scale": None if into is None else into.scale,
        "output_zero_point": None if into is None else into.zero_point,
        "weight_scale_min": None if weight is None else float(weight.scale.min()),
        "weight_scale_max": None if weight is None else float(weight.scale.max()),
        "macs": 0 if cost is None else cost.macs,
        "bytes": activation_bytes + index_bytes + weight_bytes + bias_bytes,
        "float_bytes": 4 * (activation_bytes + (0 if weight is None else weight.values.size))
        + bias_bytes,
    }


def decibels(value: float) -> float | None:
    """SQNR in dB to two decimals; None where there is no error at all (JSON has no infinity)."""
    return round(value, 2) if math.isfinite(value) else None
