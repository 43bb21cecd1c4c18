"""Normalization and labels in an ONNX file: metadata entries that any runtime hands to its caller.

labels   one per line        mean, std   numbers, comma-separated: x = (pixel - mean) / std
"""

from __future__ import annotations

from deploykit.emit.onnx_file import parse_onnx
from deploykit.spec.model_metadata import ModelMetadata


def with_metadata(data: bytes, metadata: ModelMetadata) -> bytes:
    """The same file, described."""
    if not metadata:
        return data
    model = parse_onnx(data)
    entries = {
        "labels": "\n".join(metadata.labels),
        "mean": ",".join(map(repr, metadata.mean)),
        "std": ",".join(map(repr, metadata.std)),
    }
    for key, value in entries.items():
        if value:
            model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString(deterministic=True))
