"""Grids of activations as text, with which a float graph's file says where its integers end."""

from __future__ import annotations

import json
from collections.abc import Mapping

from deploykit.spec.given import ActivationGrid
from deploykit.spec.quantized import Quantization

GRIDS_KEY = "deploykit.grids"


def grids_text(grids: Mapping[str, ActivationGrid]) -> str:
    """By tensor: scale, zero point, low, high, bits. Scales are exact: JSON floats round-trip."""
    rows = {
        name: [one.quantization.scale, one.quantization.zero_point, one.low, one.high, one.bits]
        for name, one in sorted(grids.items())
    }
    return json.dumps(rows, separators=(",", ":"))


def grids_of_text(text: str) -> dict[str, ActivationGrid]:
    """Raises ValueError or TypeError where the text is none of grids_text."""
    found = {}
    for name, row in json.loads(text).items():
        scale, zero, low, high, bits = row
        quantization = Quantization(float(scale), int(zero))
        found[str(name)] = ActivationGrid(quantization, int(low), int(high), int(bits))
    return found
