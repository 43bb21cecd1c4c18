"""How a manifest's weights are stored, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

EIGHT = 8


def stored_bits(layer: Any) -> str:
    """Bits of a layer's weights, and behind an arrow those of the integers that store them.

    Of 5 bits, in 8 in both files: "5→8"; of 4 bits, in 4 in model.onnx and in 8 in model.tflite:
    "4→4/8". One that the user left in float: "float".
    """
    bits = layer["bits"]
    if bits is None:
        return "float" if layer.get("left_in_float") else ""
    if layer.get("block"):
        return f"{bits} g{layer['block']}"
    stored = [_carried(held) for held in layer.get("stored", {}).values()]
    if all(held == bits for held in stored):
        return str(bits)
    return f"{bits}→{'/'.join(map(str, dict.fromkeys(stored)))}"


def _carried(held: Any) -> int:
    """Bits of an integer in the file."""
    from deploykit.spec.carriers import Carrier

    return Carrier(held["carrier"]).bits


def _wider(manifest: Any) -> str:
    """Which bits a file holds in wider integers, by file; empty where none does."""
    found: dict[str, Counter[tuple[int, int]]] = {}
    for layer in manifest["layers"]:
        for key, held in layer.get("stored", {}).items():
            if layer["bits"] is not None and _carried(held) > layer["bits"]:
                counted = found.setdefault(f"model.{key}", Counter())
                counted[layer["bits"], _carried(held)] += 1
    told = {
        file: ", ".join(
            f"{bits} bits in {carried} ({count} layer{'' if count == 1 else 's'})"
            for (bits, carried), count in sorted(counted.items())
        )
        for file, counted in found.items()
    }
    files: dict[str, list[str]] = {}
    for file, words in told.items():
        files.setdefault(words, []).append(file)
    return "; ".join(f"{' and '.join(names)}: {words}" for words, names in files.items())


def storage_rows(manifest: Any) -> Iterator[tuple[str, str]]:
    """What files with weights under 8 bits take, and what files ask of runtimes."""
    narrow = any((layer["bits"] or EIGHT) < EIGHT for layer in manifest["layers"])
    wider = _wider(manifest)
    if wider:
        apart = any("/" in stored_bits(layer) for layer in manifest["layers"])
        told = "; 4→4/8 above: in 4 in model.onnx, in 8 in model.tflite" if apart else ""
        yield (
            "stored wider (→)",
            f"{wider}: they take the bytes of the wider integers, less after deflate alone{told}",
        )
    for file, held in manifest.get("stored", {}).items() if narrow else ():
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
        asks = manifest.get(f"{key}_for")
        if manifest.get(key) and (narrow or asks):
            reason = f", for {asks}" if asks else ""
            yield f"{file} is for", f"{runtime} {manifest[key]} or later{reason}"
