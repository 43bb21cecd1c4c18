"""The report of one removal as JSON values."""

from __future__ import annotations

from typing import Any

from deploykit.bundle import SCHEMA
from deploykit.exporting.pruning import PrunedFile
from deploykit.exporting.removal_record import (
    alignment_record,
    choices_record,
    hiding_record,
    removal_record,
)


def prune_record(done: PrunedFile) -> dict[str, Any]:
    """Everything that is known: both files, every removed channel with its reason, the proofs."""
    removal, measured, restored = done.removal, done.measured, done.restored
    certificate = removal.certificate
    return {
        "schema": SCHEMA,
        "input": {
            "file": str(done.source.path), "bytes": done.source.size_bytes,
            "opset": done.source.opset,
            "shapes": {name: list(shape) for name, shape in done.source.shapes.items()},
        },
        "output": {
            "file": str(done.out), "bytes": done.size_bytes,
            "open_sizes": list(restored.symbols),
            "kept_output_channels": {
                name: list(kept.channels) for name, kept in done.kept_outputs.items()
            },
            "fixed_sizes": {
                name: {"size": size, "reason": restored.reasons.get(name)}
                for name, size in restored.fixed.items()
            },
        },
        "layers": [
            {
                "layer": entry.operator, "tensor": entry.tensor,
                "channels_before": entry.channels_before, "channels_after": entry.channels_after,
            }
            for entry in removal.tensors
        ],
        **removal_record(removal),
        **hiding_record(done.hidden),
        **alignment_record(done.options, removal),
        **choices_record(done.options, removal),
        "certificate": {
            "inputs": certificate.samples,
            "max_absolute": certificate.max_absolute, "max_relative": certificate.max_relative,
            "max_relative_rounded": certificate.rounded,
        },
        "onnxruntime": {"not_measured": measured} if isinstance(measured, str) else {
            "inputs": measured.inputs, "max_absolute": measured.max_absolute,
            "max_relative": measured.max_relative,
        },
    }  # fmt: skip
