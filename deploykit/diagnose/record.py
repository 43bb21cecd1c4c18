"""A diagnosis as plain JSON values."""

from __future__ import annotations

import math
from typing import Any

from deploykit.diagnose.findings import Advice, Cause, Diagnosis, LayerFinding, Remedy


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """SQNRs in dB, None where there is no error at all; errors are power over the signal's."""
    bits = {layer.name: layer.bits for layer in found.layers}
    return {
        "output_sqnr_db": _number(found.output_db),
        "measured_sqnr_db": {name: _number(value) for name, value in found.measured_db.items()},
        "samples": found.samples,
        "fitted_samples": found.fitted,
        "limited_by_memory": found.limited,
        "bits_allocated_under": found.target or None,
        "layers": [_layer(layer, found.total) for layer in found.layers],
        "advice": [_advice(one, bits[one.layer]) for one in found.advice],
        "together": None if found.together is None else _remedy(found.together),
        "everywhere": [_remedy(one) for one in found.everywhere],
        "untried": list(found.untried),
    }


def cause_text(cause: Cause, bits: int | None) -> str:
    """bits: of the layer's weights."""
    return cause.value.format(bits=bits)


def _layer(layer: LayerFinding, total: float) -> dict[str, Any]:
    return {
        "name": layer.name,
        "operator": layer.operator,
        "bits": layer.bits,
        "sqnr_db": _number(layer.sqnr_db),
        "output_error_by_weights": layer.weights,
        "output_error_by_activations": layer.activations,
        "share": layer.error / total if total > 0.0 else 0.0,
        "saturated": layer.saturated,
        "error_by_saturation": layer.clipped,
        "worst_channels": [
            {"channel": one.index, "share": one.share, "sqnr_db": _number(one.sqnr_db)}
            for one in layer.channels
        ],
        "sensitivity": layer.sensitivity,
    }


def _advice(advice: Advice, bits: int | None) -> dict[str, Any]:
    return {
        "layer": advice.layer,
        "share": advice.share,
        "cause": advice.cause.name.lower(),
        "because": cause_text(advice.cause, bits),
        "remedy": None if advice.remedy is None else _remedy(advice.remedy),
        "tried": list(advice.tried),
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "flags": list(remedy.flags),
        "estimated_before_db": _number(remedy.before_db),
        "estimated_after_db": _number(remedy.after_db),
        "more_weight_bytes": None if remedy.weight_bytes is None else dict(remedy.weight_bytes),
        "estimated": remedy.of or "whole",
    }


def _number(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
