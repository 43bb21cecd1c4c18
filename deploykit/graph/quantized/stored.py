"""Integers that a file stores, or that it rounds from stored floats, and the range they state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.graph.quantized.constants import Constants
from deploykit.graph.quantized.parameters import RANGES, element_of, parameters_of
from deploykit.spec.arrays import AnyArray

SAME_INTEGERS = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
"""Operators behind which integers are the ones before, so that their range is the narrower's."""


@dataclass(frozen=True)
class Stored:
    """low, high: what the integers may be, by their element type or a Clip. name: in the file.

    element: numpy's name of the type that the DequantizeLinear reads.
    """

    values: AnyArray
    low: int
    high: int
    name: str
    element: str

    def within(self, low: int, high: int) -> Stored:
        """Bounded once more."""
        bounds = max(low, self.low), min(high, self.high)
        return replace(self, values=np.clip(self.values, *bounds), low=bounds[0], high=bounds[1])

    def cast(self, element: str) -> Stored:
        """As ONNX's Cast does: what the type does not hold wraps, 200 to -56 in int8."""
        low, high = RANGES[element]
        if low <= self.low and self.high <= high:
            return replace(self, element=element)
        wrapped = (self.values - low) % (high - low + 1) + low
        return replace(self, values=wrapped, low=low, high=high, element=element)


def stored_integers(value: ir.Value | None, constants: Constants) -> Stored | None:
    """The integers behind a constant; None where an input decides them, or where it is none."""
    node = None if value is None else value.producer()
    if value is None:
        return None
    if node is not None and node.op_type == "QuantizeLinear":
        real = constants.value(node.inputs[0])
        if real is None:
            return None
        element = element_of(node, constants)
        low, high = RANGES.get(element, (0, 0))
        rounded = parameters_of(node, constants).rounded(real, low, high)
        source = node.inputs[0]
        return Stored(rounded, low, high, "" if source is None else str(source.name), element)
    if node is not None and node.op_type in SAME_INTEGERS | {"Clip"}:
        behind = stored_integers(node.inputs[0], constants)
        if behind is None or node.op_type == "Identity":
            return behind
        if node.op_type == "Cast":
            kind = ir.DataType(node.attributes["to"].as_int()).name.lower()
            return behind.cast(kind) if kind in RANGES else None
        if node.op_type == "Clip":
            bounds = [constants.value(one) for one in node.inputs[1:]]
            low, high = (
                default if bound is None else int(bound.reshape(()))
                for bound, default in zip(
                    [*bounds, None, None], (behind.low, behind.high), strict=False
                )
            )
            return behind.within(low, high)
        shaped = constants.value(value)
        return None if shaped is None else replace(behind, values=shaped.astype(np.int64))
    array = constants.value(value)
    if array is None or array.dtype.name not in RANGES:
        return None
    low, high = RANGES[array.dtype.name]
    return Stored(array.astype(np.int64), low, high, _name(value), array.dtype.name)


def _name(value: ir.Value) -> str:
    """Of the initializer that integers come from: of a table's rows, the places taken."""
    node = value.producer()
    while node is not None and node.inputs:
        source = node.inputs[1 if node.op_type == "Gather" else 0]
        if source is None:
            break
        value, node = source, source.producer()
    return str(value.name)
