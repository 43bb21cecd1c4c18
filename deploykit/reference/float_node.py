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
    """One node. opset: version of the default ONNX domain that the graph imports."""

    node: ir.Node
    opset: int

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

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """A list-of-floats attribute."""
        value = self._value(name, None)
        return None if value is None else tuple(float(entry) for entry in value)

    def tensor(self, name: str) -> AnyArray | None:
        """A tensor attribute."""
        entry = self.node.attributes.get(name)
        return None if entry is None else np.asarray(entry.as_tensor().numpy())

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

Outputs = AnyArray | tuple[AnyArray, ...]

Rule = Callable[[FloatNode, Inputs], Outputs]
"""A node's first output, or a tuple of its outputs in order; an input left out is None."""


def given(node: FloatNode, inputs: Inputs, index: int) -> AnyArray:
    """An input that has to be there."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise node.refuse(f"input {index} is missing")
    return value


def every(node: FloatNode, inputs: Inputs) -> list[AnyArray]:
    """All inputs of an operator that takes any number of them."""
    return [given(node, inputs, index) for index in range(len(inputs))]


def optional(inputs: Inputs, index: int) -> AnyArray | None:
    """An input that may be left out."""
    return inputs[index] if index < len(inputs) else None


def integer_list(node: FloatNode, inputs: Inputs, index: int, name: str) -> tuple[int, ...] | None:
    """Integers that newer opsets pass as an input and older ones as an attribute."""
    value = optional(inputs, index)
    if value is not None:
        return tuple(int(entry) for entry in np.asarray(value).reshape(-1))
    return node.integers(name)


def scalar(inputs: Inputs, index: int) -> int | float | None:
    """An optional input of one element as a Python number, which takes the type it meets."""
    value = optional(inputs, index)
    if value is None:
        return None
    number: int | float = value.reshape(()).item()
    return number


def axis_of(values: AnyArray, axis: int) -> int:
    """An axis counted from the front; negative ones count from the back."""
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis {axis} of {values.ndim} axes")
    return axis % values.ndim
