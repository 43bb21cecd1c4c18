"""What a path holds: a checkpoint, a model file, or a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploykit.bundle import Bundle, read_bundle
from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import CheckpointSummary, inspect_checkpoint
from deploykit.report.model import ModelSummary, summarize_model

MODEL_ENDINGS = (".onnx", ".tflite")
Description = CheckpointSummary | ModelSummary | Bundle


def describe(path: Path) -> Description:
    """Read what is there; a folder is a bundle, .onnx and .tflite are models, else a checkpoint."""
    if path.is_dir():
        return read_bundle(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file; inspect takes a checkpoint, a model file or a bundle"
        )
    if path.suffix in MODEL_ENDINGS:
        return summarize_model(path)
    return inspect_checkpoint(load_checkpoint(path))


def describe_json(found: Description) -> dict[str, Any]:
    """Plain values."""
    if isinstance(found, Bundle):
        return {"bundle": str(found.path), "manifest": dict(found.manifest)}
    values = asdict(found)
    values["path"] = str(found.path)
    return values
