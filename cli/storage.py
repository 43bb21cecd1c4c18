"""How a manifest's weights are stored, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

EIGHT = 8
IN_BYTES = "int8"


def stored_bits(layer: Any) -> str:
    """Bits of a layer's weights, and what holds them where that is wider in a file.

    A layer of 4 bits that model.onnx holds in 4 and model.tflite in 8: "4 (tflite int8)"; one that
    the user left in float: "float".
    """
    bits = layer["bits"]
    if bits is None:
        return "float" if layer.get("left_in_float") else ""
    if layer.get("block"):
        return f"{bits} g{layer['block']}"
    wider = [
        f"{key} {held['carrier']}"
        for key, held in layer.get("stored", {}).items()
        if bits < EIGHT and held["carrier"] == IN_BYTES
    ]
    return f"{bits} ({', '.join(wider)})" if wider else str(bits)


def storage_rows(manifest: Any) -> Iterator[tuple[str, str]]:
    """What files with weights under 8 bits take, and what they ask of ONNX Runtime."""
    narrow = any((layer["bits"] or EIGHT) < EIGHT for layer in manifest["layers"])
    if not narrow:
        return
    for file, held in manifest.get("stored", {}).items():
        memory = held.get("weight_memory_bytes")
        in_memory = "" if memory is None else f", {memory:,} in memory"
        yield (
            f"weights of {file}",
            f"{held['weight_bytes']:,} bytes{in_memory}; the file deflates to "
            f"{held['deflated_bytes']:,}",
        )
    for file, runtime, key in (
        ("model.onnx", "ONNX Runtime", "min_onnxruntime"), ("model.tflite", "LiteRT", "min_litert")
    ):  # fmt: skip
        if manifest.get(key):
            yield f"{file} is for", f"{runtime} {manifest[key]} or later"
