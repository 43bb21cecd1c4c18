"""How bits were allocated, for manifest.json and plan.json."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deploykit.spec.allocation import Allocation, DrawTest, LayerChoices, PosteriorEvidence
from deploykit.spec.plan import QuantPlan


def allocation_record(found: Allocation) -> dict[str, Any]:
    """Target, measure, what each weight got and would cost at other bits, and the evidence.

    Sensitivities are nats by posterior, changes of the output by moments.
    """
    return {
        "target": str(found.auto.target),
        "sensitivity": found.measure.value,
        "asked_sensitivity": found.auto.sensitivity.value,
        "mean_bits": found.mean_bits,
        "weight_bytes": found.weight_bytes,
        "total_sensitivity": found.sensitivity,
        "layers": [_layer(one, found) for one in found.choices],
        "posterior": None if found.evidence is None else evidence_record(found.evidence),
        "float_accuracy": found.reference,
        "tried": [
            {
                "weight_bytes": one.limit, "largest_file": one.largest_file,
                "accuracy": one.accuracy,
            }
            for one in found.tried
        ],
    }  # fmt: skip


def plan_rows(plan: QuantPlan, formats: Collection[str]) -> list[dict[str, Any]]:
    """The same rows of a plan whose bits nobody allocated: one per layer, no sensitivity."""
    rows = []
    for layer in plan.layers:
        held = layer.weight
        if held is not None:
            size = max(held.carriers.of(fmt).size_bytes(held.values.size) for fmt in formats)
            rows.append(
                {
                    "layers": [layer.name], "weights": held.values.size, "bits": held.bits,
                    "bytes": size, "sensitivity": None, "share": None, "fixed": None,
                }
            )  # fmt: skip
    return rows


def _layer(one: LayerChoices, found: Allocation) -> dict[str, Any]:
    bits = found.bits[one.name]
    own, total = one.sensitivity.get(bits), found.sensitivity
    return {
        "layers": list(one.layers),
        "weights": one.weights,
        "bits": bits,
        "bytes": one.file_bytes[bits],
        "sensitivity": own,
        "share": own / total if own is not None and total > 0 else None,
        "fixed": one.fixed or None,
        "bytes_by_bits": {str(wide): size for wide, size in sorted(one.file_bytes.items())},
        "sensitivity_by_bits": {str(wide): lost for wide, lost in sorted(one.sensitivity.items())},
    }


def evidence_record(evidence: PosteriorEvidence) -> dict[str, Any]:
    """Whether the posterior is informative, why it is not, and the figures."""
    return {
        "informative": evidence.informative,
        "why_not": evidence.why or None,
        "without_variance": list(evidence.lacking),
        "spread_quartile_ratio": evidence.varied,
        "draws": None if evidence.test is None else _draws(evidence.test),
        "noise_over_spread": None if evidence.noise is None else {
            str(bits): ratio for bits, ratio in evidence.noise.items()
        },
    }  # fmt: skip


def _draws(test: DrawTest) -> dict[str, Any]:
    return {
        "judged_by": test.judged_by, "samples": test.samples, "draws": test.draws,
        "mean": test.mean, "by_scale": {f"{scale:g}": by for scale, by in test.by_scale.items()},
        "scale": test.scale,
    }  # fmt: skip
