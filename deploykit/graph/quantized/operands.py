"""Grids of the constants that a sum or a product of a quantized graph reads."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from deploykit.graph.quantized.parameters import IN_EIGHT_BITS, RANGES, Parameters
from deploykit.graph.quantized.stored import Stored
from deploykit.spec.quantized import UINT8_SHIFT, Quantization

READERS = frozenset(("Add", "Div", "Mul", "Sub"))


def constant_grids(
    stored: Mapping[ir.Value, tuple[Stored, Parameters]],
) -> dict[str, Quantization]:
    """By name of the float initializer; of int8 and what lies in it, with one scale for all.

    stored: by float initializer.
    """
    return {
        str(value.name): Quantization(float(parameters.scale), int(parameters.zero) + _shift(held))
        for value, (held, parameters) in stored.items()
        if parameters.scale.size == 1
        and held.element in RANGES
        and RANGES[held.element][1] - RANGES[held.element][0] < IN_EIGHT_BITS
        and any(use.node.op_type in READERS for use in value.uses())
    }


def _shift(held: Stored) -> int:
    return -UINT8_SHIFT if RANGES[held.element][0] == 0 else 0
