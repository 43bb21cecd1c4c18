"""Help of `deploykit export`: its options under headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "What enters and where it goes": (
        "out", "model", "weights", "layer_map", "input_shape", "data", "eval_data", "config",
    ),
    "Bits of weights": (
        "bits", "layer_bits", "max_bytes", "target_bits", "max_accuracy_drop", "sensitivity",
        "plan", "save_plan",
    ),
    "Rounding and ranges": (
        "rounding", "weight_range", "bias_correction", "calibration", "equalization",
    ),
    "Weights alone in integers": ("activations", "block_size"),
    "Files and the runtimes that load them": (
        "to", "min_ort", "tflite_lowbit", "target", "io", "tflite_layout", "batch", "labels",
        "mean", "std",
    ),
    "Folding and pruning": (
        "prune_rule", "threshold", "batchnorm", "numerics", "exact", "align",
    ),
    "Confidence": ("temperature", "temperature_data"),
    "What is shown": ("dry_run", "as_json", "help"),
}  # fmt: skip
"""By heading the parameters below it, in order."""


class ExportCommand(TyperCommand):
    """Shows options by HEADINGS."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments first; tests/cli hold the options against HEADINGS."""
        records = {
            str(one.name): record
            for one in self.get_params(ctx)
            if (record := one.get_help_record(ctx)) is not None
        }
        sections = [[records.pop(name) for name in names] for names in HEADINGS.values()]
        titled = {"Arguments": list(records.values()), **dict(zip(HEADINGS, sections, strict=True))}
        for heading, rows in titled.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
