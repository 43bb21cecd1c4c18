"""What channel removal did, as JSON values."""

from __future__ import annotations

import math
from typing import Any

from deploykit.graph.options import Measured, MultipleOf, RemovalOptions
from deploykit.spec.negligible import Negligible
from deploykit.spec.removal import RemovalReport, RemovedChannel


def removal_record(report: RemovalReport) -> dict[str, Any]:
    """What went, by layer, and how far the function is from what it was."""
    return {
        "parameters_before": report.parameters_before,
        "parameters_after": report.parameters_after,
        "macs_before": report.macs_before,
        "macs_after": report.macs_after,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "max_relative_difference": _at_most(report.certificate.max_relative),
        "relative_difference": {
            kind: _at_most(value) for kind, value in report.certificate.relative.items()
        },
        "range_growth": dict(report.range_growth),
        "stopped_at": list(report.borders),
        "channels": {
            entry.operator: [_removed(channel) for channel in entry.removed]
            for entry in report.tensors
            if entry.removed
        },
    }


def _removed(channel: RemovedChannel) -> dict[str, Any]:
    known = {"channel": channel.channel, "reason": channel.reason.name.lower()}
    optional = {"constant": channel.constant, "into": channel.into}
    return {**known, **{key: value for key, value in optional.items() if value is not None}}


def hiding_record(hidden: Negligible | None) -> dict[str, Any]:
    """Channels that float32 rounding hides; null where they were not looked for."""
    if hidden is None:
        return {"hidden_by_float32": None}
    return {
        "hidden_by_float32": {
            "outcome": hidden.outcome.name.lower(),
            "samples": hidden.samples,
            "measured_change": _at_most(hidden.measured),
            "allowed_change": _at_most(hidden.allowed),
            "channels": [
                {
                    "layer": channel.layer, "channel": channel.channel,
                    "hiding": channel.hiding.name.lower(),
                    "largest_weight": channel.largest_weight, "constant": channel.constant,
                    "readers": {
                        reader.reader: {
                            "largest_weight": reader.largest_weight,
                            "bound_in_roundings": _bounded(reader.bound),
                        }
                        for reader in channel.readers
                    },
                }
                for channel in hidden.channels
            ],
        }
    }  # fmt: skip


def alignment_record(options: RemovalOptions, report: RemovalReport) -> dict[str, Any]:
    """By which rule dead channels stayed for speed, and which did."""
    match options.align:
        case Measured(table):
            rule: dict[str, Any] | None = {
                "target": table.target, "runtime": table.runtime, "measured": table.date,
            }  # fmt: skip
        case MultipleOf(step):
            rule = {"multiple_of": step}
        case None:
            rule = None
    return {
        "alignment": {
            "rule": rule,
            "note": options.note,
            "blocks": [
                {
                    "tensors": list(block.tensors), "needed": block.needed, "width": block.width,
                    "predicted_speedup": None if block.gain is None else round(block.gain, 3),
                }
                for block in report.widened
            ],
        }
    }  # fmt: skip


def choices_record(options: RemovalOptions, report: RemovalReport) -> dict[str, Any]:
    """Convolutions whose groups were split, and layers that compute their live channels alone.

    The latter null where that was not asked for.
    """
    if options.narrow is None:
        return {"split_groups": list(report.split), "narrowed_layers": None}
    return {
        "split_groups": list(report.split),
        "narrowed_layers": [
            {
                "layer": layer.layer, "channels": layer.channels, "live": layer.live,
                "width": layer.width, "predicted_speedup": round(layer.gain, 3),
            }
            for layer in report.narrowed
        ]
    }  # fmt: skip


def _bounded(value: float) -> float | None:
    """JSON has no infinity: null where a bound is not finite."""
    return value if math.isfinite(value) else None


def _at_most(difference: float) -> float:
    """A bound for a float64 difference: its last bits depend on the number of threads.

    Anything under 1e-12 is rounding and is stated as 1e-12; above, the next power of ten.
    """
    return float(10.0 ** math.ceil(math.log10(max(difference, 1e-12)) - 1e-9))
