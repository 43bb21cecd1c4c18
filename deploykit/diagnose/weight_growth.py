"""Bytes that a layer's weights take more in each model file, with 8 bits or as floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deploykit.diagnose.subject import Opened
from deploykit.quantize.nodes import parameter
from deploykit.quantize.structure import Layer

FLOAT_BYTES = 4
BYTE = 1

Growth = Mapping[str, int]
"""By model file."""


def weights_of(layer: Layer) -> int:
    """How many."""
    return int(parameter(layer.nodes[0], 1).size)


def grown_to_8_bits(opened: Opened, layer: Layer) -> Growth:
    """8 bits take a byte in every file."""
    return _grown(opened, layer, BYTE)


def grown_to_float(opened: Opened, layer: Layer) -> Growth:
    """Of float32 weights."""
    return _grown(opened, layer, FLOAT_BYTES)


def added(growths: Iterable[Growth]) -> Growth | None:
    """Of several layers; None of none."""
    total: dict[str, int] = {}
    for growth in growths:
        for file, more in growth.items():
            total[file] = total.get(file, 0) + more
    return total or None


def _grown(opened: Opened, layer: Layer, each: int) -> Growth:
    """each: bytes of one weight then; files hold the rest as the manifest says, or in bytes."""
    count = weights_of(layer)
    entries = opened.bundle.manifest["layers"]
    stored: Mapping[str, Any] = next(
        (one.get("stored", {}) for one in entries if one["name"] == layer.name), {}
    )
    return {
        fmt.file: each * count - int(stored.get(fmt.key, {"bytes": count})["bytes"])
        for fmt in opened.formats
    }
