"""A graph under construction, and the random weights that give it dead and constant channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploykit.spec.arrays import AnyArray, Float64Array

Shape = tuple[int, ...]
Step = Callable[["Growing"], None]
"""Appends nodes that read the last tensor, or none where it does not fit."""

BIASES = (-1.5, -0.5, 0.0, 0.0, 0.5, 2.0, 4.0)

LARGEST = 400
"""Elements of a tensor, so that a graph is evaluated in milliseconds."""


@dataclass
class Growing:
    """shapes: by tensor, with the batch of 1; `last` is read next; outputs: besides the last one.

    rng: of the step at work.
    """

    rng: np.random.Generator
    shapes: dict[str, Shape]
    inputs: list[str]
    last: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, AnyArray] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """Of the tensor that is read next."""
        return self.shapes[self.last]

    @property
    def is_image(self) -> bool:
        """[1, C, H, W]"""
        return len(self.shape) == 4

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is worth evaluating."""
        return min(shape) > 0 and int(np.prod(shape)) <= LARGEST

    def put(
        self, operator: str, shape: Sequence[int], *constants: AnyArray | None, **attributes: Any
    ) -> str:
        """Append a node that reads `last` and constants of its own (None: left out)."""
        return self.join(operator, shape, [self.last], *constants, **attributes)

    def join(
        self,
        operator: str,
        shape: Sequence[int],
        sources: Sequence[str],
        *constants: AnyArray | None,
        **attributes: Any,
    ) -> str:
        """Append a node that reads `sources`, then constants of its own."""
        return self.read(operator, shape, [*sources, *constants], **attributes)

    def read(
        self,
        operator: str,
        shape: Sequence[int],
        operands: Sequence[str | AnyArray | None],
        **attributes: Any,
    ) -> str:
        """Append a node that reads tensors and constants in any order."""
        (output,) = self.several(operator, [shape], operands, **attributes)
        return output

    def several(
        self,
        operator: str,
        shapes: Sequence[Sequence[int]],
        operands: Sequence[str | AnyArray | None],
        **attributes: Any,
    ) -> list[str]:
        """Append a node with one output per shape; the first is read next."""
        stem = f"t{len(self.nodes)}"
        names: list[str] = []
        for index, operand in enumerate(operands):
            if operand is None or isinstance(operand, str):
                names.append(operand or "")
            else:
                names.append(f"{stem}.{index}")
                self.constants[names[-1]] = operand
        outputs = [stem] + [f"{stem}_{k}" for k in range(1, len(shapes))]
        self.nodes.append(helper.make_node(operator, names, outputs, **attributes))
        self.shapes.update((n, tuple(map(int, s))) for n, s in zip(outputs, shapes, strict=True))
        self.last = stem
        return outputs

    def chance(self, probability: float) -> bool:
        """True that often."""
        return bool(self.rng.random() < probability)

    def pick(self, *choices: Any) -> Any:
        """One of them."""
        return choices[int(self.rng.integers(len(choices)))]

    def count(self, low: int, high: int) -> int:
        """low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def kernels(self, *shape: int) -> Float64Array:
        """Random weights [O, I, ...] with dead rows, dead columns and dead single kernels.

        Of unit gain, so that deep graphs stay in a range in which float64 is exact enough.
        """
        loudness = self.rng.choice([0.05, 1.0], size=(1, shape[1], *(1,) * (len(shape) - 2)))
        weight = self.rng.normal(size=shape) * loudness / np.sqrt(np.prod(shape[1:]))
        weight[self.rng.random(shape[0]) < self.pick(0.0, 0.4, 0.7)] = 0.0
        if shape[1] > 1:
            weight[:, self.rng.random(shape[1]) < self.pick(0.0, 0.2, 0.5)] = 0.0
        weight[self.rng.random(shape[:2]) < self.pick(0.0, 0.2)] = 0.0
        return np.asarray(weight)

    def biases(self, count: int) -> Float64Array:
        """Values of which some are equal, so that constants meet."""
        return self.rng.choice(BIASES, size=count)

    def divisor(self, number: int) -> int:
        """Any of its divisors."""
        return int(self.pick(*(k for k in range(1, number + 1) if number % k == 0)))

    def others(self, shape: Shape) -> list[str]:
        """Tensors of that shape but the last."""
        return [name for name, s in self.shapes.items() if s == shape and name != self.last]

    def bounded(self) -> None:
        """Bring the last tensor between -1 and 1, or 0 and 1, before something that grows."""
        kind = self.pick("Tanh", "Sigmoid", "HardSigmoid", "Softsign", "Clip")
        bounds = (np.array(-1.0), np.array(1.0)) if kind == "Clip" else ()
        self.put(kind, self.shape, *bounds)

    def positive(self) -> None:
        """Bring the last tensor between 1 and 3, before something with a pole at zero."""
        self.put("Softsign", self.shape)
        self.put("Add", self.shape, np.array(2.0))


def ints(*numbers: int) -> AnyArray:
    """An operand of sizes, axes or indices."""
    return np.array(numbers, dtype=np.int64)
