"""What folding a checkpoint did, in manifest.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from deploykit.exporting.options import CheckpointOptions, OnnxOptions
from deploykit.spec.posterior import FoldReport


def fold_record(
    report: FoldReport | None, options: CheckpointOptions | OnnxOptions
) -> dict[str, Any] | None:
    """What folding did; None where the export began behind folding."""
    if report is None or isinstance(options, OnnxOptions):
        return None
    return {
        "families": dict(report.families),
        "prune_rule": options.pruning.rule.value,
        "batchnorm": report.batchnorm,
        "numerics": options.numerics.value,
        "arithmetic": [asdict(difference) for difference in report.arithmetic],
        "gates": [
            {
                "layer": layer.layer, "rule": layer.rule, "threshold": layer.threshold,
                "gates": int(layer.closed.size), "closed": int(layer.closed.sum()),
            }
            for layer in report.pruning
        ],
        **({"trained_bits": _trained_bits(report)} if report.precision else {}),
        "mean_difference": report.mean_difference,
        "monte_carlo_difference": report.monte_carlo_difference,
        "monte_carlo_samples": report.monte_carlo_samples,
        "compared_inputs": report.compared_inputs,
        "metrics": {
            stage: asdict(found) for stage, found in report.metrics.items()
        },
    }  # fmt: skip


def _trained_bits(report: FoldReport) -> dict[str, dict[str, int | None]]:
    """By layer; None where training left in float what is not there or not quantized."""
    return {
        name: {
            "weights": held.weight_bits,
            "activations": None if held.activation is None else held.activation.bits,
        }
        for name, held in report.precision.items()
    }
