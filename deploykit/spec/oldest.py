"""The oldest ONNX Runtime that loads a written network.

Each of its operators came with a release: element types that a carrier needs, and kernels for
uint8. tests/suite/test_carriers.py runs the suite's cases on whatever release is installed; the
versions below were found by running them on 1.20.1, 1.22.1, 1.23.0, 1.24.1, 1.24.4, 1.26.0, 1.27.0,
1.28.0 and 1.32.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.spec.carriers import OLDEST_ORT, TABLE, Version
from deploykit.spec.operators import (
    Conv,
    DepthToSpace,
    Linear,
    Maximum,
    Minimum,
    Operator,
    SpaceToDepth,
)
from deploykit.spec.quantized import QuantizedNetwork

UINT8_SINCE: Mapping[type[Operator], Version] = {
    DepthToSpace: Version(1, 22),
    Maximum: Version(1, 24),
    Minimum: Version(1, 24),
    SpaceToDepth: Version(1, 28),
}
"""Operators on uint8 tensors that older releases have no kernel for."""

WEIGHTS_SINCE = {
    row.carrier: row.since for row in TABLE if row.format == "onnx" and row.since is not None
}


@dataclass(frozen=True)
class Oldest:
    """version: of ONNX Runtime.

    operator: the first that asks for it, and with what; empty where none does.
    """

    version: Version
    operator: str = ""


def oldest_onnxruntime(network: QuantizedNetwork) -> Oldest:
    """network: as the file has it, stems over blocks included."""
    found = Oldest(OLDEST_ORT)
    for operator in network.operators:
        since, what = UINT8_SINCE.get(type(operator)), "uint8"
        if isinstance(operator, Conv | Linear):
            carrier = operator.weight.carriers.onnx
            since, what = WEIGHTS_SINCE.get(carrier), f"{carrier.value.upper()} weights"
        if since is not None and since > found.version:
            found = Oldest(since, f"{type(operator).__name__} {operator.name!r} ({what})")
    return found
