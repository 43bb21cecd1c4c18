"""Values that depend on constants alone: weights behind Casts, tables, and integers as stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from deploykit.graph.edit import constant
from deploykit.spec.arrays import AnyArray

COMPUTED = frozenset((
    "Cast", "Clip", "Concat", "Div", "Expand", "Exp", "Flatten", "Gather", "Identity", "Mul", "Neg",
    "Pow", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Operators that exporters put between a stored constant and what reads it."""


@dataclass
class Constants:
    """Looks values up in one graph, each computed once."""

    known: dict[ir.Value, AnyArray | None] = field(default_factory=dict)

    def value(self, value: ir.Value | None) -> AnyArray | None:
        """The array; None where an input of the graph decides it."""
        if value is None:
            return None
        if value not in self.known:
            self.known[value] = self._computed(value)
        return self.known[value]

    def _computed(self, value: ir.Value) -> AnyArray | None:
        held, node = constant(value), value.producer()
        if held is not None or node is None:
            return held
        if node.op_type == "Constant":
            return _stated(node)
        if node.op_type not in COMPUTED or node.domain not in {"", "ai.onnx"}:
            return None
        read = [self.value(one) for one in node.inputs]
        if any(
            one is not None and array is None for one, array in zip(node.inputs, read, strict=True)
        ):
            return None
        if node.op_type == "Cast":
            return _cast(node, read[0])
        feeds = {str(one.name): array for one, array in zip(node.inputs, read, strict=True) if one}
        (found,) = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
        return np.asarray(found)


def _cast(node: ir.Node, array: AnyArray | None) -> AnyArray | None:
    assert array is not None
    return array.astype(ir.DataType(node.attributes["to"].as_int()).numpy())


def _stated(node: ir.Node) -> AnyArray | None:
    """The array of a Constant node."""
    for name, attribute in node.attributes.items():
        match name:
            case "value":
                return np.asarray(attribute.as_tensor().numpy())
            case "value_float":
                return np.asarray(attribute.as_float(), np.float32)
            case "value_floats":
                return np.asarray(attribute.as_floats(), np.float32)
            case "value_int":
                return np.asarray(attribute.as_int(), np.int64)
            case "value_ints":
                return np.asarray(attribute.as_ints(), np.int64)
            case _:
                continue
    return None
