"""A float operator as the evaluator sees it: attributes, and inputs as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray


@dataclass(frozen=True)
class FloatNode:
    """One node. opset: version of the default ONNX domain that the graph imports.

    batch: the graph's static batch, and samples: how many there are now; None where the batch is
    dynamic or equal.
    """

    node: ir.Node
    opset: int
    batch: int | None = None
    samples: int | None = None

    @property
    def where(self) -> str:
        """Operator and node, for messages."""
        return f"{self.node.op_type} {self.node.name!r}"

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self._value(name, default))

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self._value(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self._value(name, default))

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """A list-of-integers attribute."""
        value = self._value(name, default)
        return None if value is None else tuple(int(entry) for entry in value)

    def has(self, name: str) -> bool:
        """Whether an attribute is written out."""
        return name in self.node.attributes

    def refuse(self, why: str) -> UnsupportedOperatorError:
        """The error for a form of the operator that is not evaluated."""
        return UnsupportedOperatorError(
            f"{self.where}: {why}, which the reference does not evaluate; "
            "simplify the graph, or evaluate it with a runtime."
        )

    def _value(self, name: str, default: Any) -> Any:
        entry = self.node.attributes.get(name)
        return default if entry is None else entry.value


Inputs = Sequence[AnyArray | None]

Rule = Callable[[FloatNode, Inputs], AnyArray]
"""The first output of a node, from its inputs; an input that is left out is None."""


def given(node: FloatNode, inputs: Inputs, index: int) -> AnyArray:
    """An input that has to be there."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise node.refuse(f"input {index} is missing")
    return value


def optional(inputs: Inputs, index: int) -> AnyArray | None:
    """An input that may be left out."""
    return inputs[index] if index < len(inputs) else None


def integer_list(node: FloatNode, inputs: Inputs, index: int, name: str) -> tuple[int, ...] | None:
    """Integers that newer opsets pass as an input and older ones as an attribute."""
    value = optional(inputs, index)
    if value is not None:
        return tuple(int(entry) for entry in np.asarray(value).reshape(-1))
    return node.integers(name)
