"""What weights take, in a bundle's files and in memory, and which kernels read them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from deploykit.spec.oldest import oldest_onnxruntime
from deploykit.spec.quantized import QuantizedNetwork, weighted
from deploykit.spec.stem import Runtime, stems_as_blocks
from deploykit.spec.storage import Storage, storage_of
from deploykit.verify.formats import Format

RUNTIMES = {"onnx": Runtime.ONNXRUNTIME, "tflite": Runtime.LITERT}
STRONGEST = 9
"""Level of zlib, as packages and stores deflate what they ship."""


def size_record(models: Mapping[Format, bytes], network: QuantizedNetwork) -> dict[str, Any]:
    """By file: its bytes after deflate, those of its weights in it, and those that kernels read.

    A weight that several operators read counts once. memory_bytes: of integers alone; a runtime may
    keep the file itself beside them.
    """
    return {
        fmt.file: {
            "deflated_bytes": len(zlib.compress(data, STRONGEST)),
            "weight_bytes": sum(one.file_bytes for one in _stored(fmt.key, network)),
            "weight_memory_bytes": sum(one.memory_bytes for one in _stored(fmt.key, network)),
        }
        for fmt, data in models.items()
    }


def oldest_ort(models: Mapping[Format, bytes], network: QuantizedNetwork) -> dict[str, str | None]:
    """The oldest ONNX Runtime that loads model.onnx, and which operator asks for it; or None."""
    if not any(fmt.key == "onnx" for fmt in models):
        return {"min_onnxruntime": None, "min_onnxruntime_for": None}
    found = oldest_onnxruntime(_written("onnx", network))
    return {"min_onnxruntime": str(found.version), "min_onnxruntime_for": found.operator or None}


def oldest_litert(models: Mapping[Format, bytes], network: QuantizedNetwork) -> str | None:
    """The oldest LiteRT whose kernels take model.tflite's weights; None where they are int8."""
    if not any(fmt.key == "tflite" for fmt in models):
        return None
    found = [storage_of("tflite", one).since for one in weighted(network)]
    newest = max((since for since in found if since is not None), default=None)
    return None if newest is None else str(newest)


def layer_storage(
    network: QuantizedNetwork, keys: Iterable[str]
) -> Mapping[str, Mapping[str, dict[str, Any]]]:
    """By output of a layer and format: carrier, bytes in the file and predicted kernel."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key in keys:
        for operator in weighted(_written(key, network)):
            held = storage_of(key, operator)
            told = {"carrier": held.carrier.value, "bytes": held.file_bytes, "kernel": held.kernel}
            found.setdefault(operator.output, {})[key] = told
    return found


def _stored(key: str, network: QuantizedNetwork) -> Iterable[Storage]:
    written = _written(key, network)
    held = {
        (one.weight.name, storage_of(key, one).carrier): storage_of(key, one)
        for one in weighted(written)
    }
    return held.values()


def _written(key: str, network: QuantizedNetwork) -> QuantizedNetwork:
    """The network as a format's file has it."""
    written, _ = stems_as_blocks(network, RUNTIMES[key])
    return written
