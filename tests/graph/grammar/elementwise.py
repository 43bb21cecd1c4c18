"""Activations, arithmetic with constants, batch normalization, and operators without a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploykit.spec.arrays import Float64Array
from tests.graph.grammar.growing import Growing, Step

ACTIVATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Relu", {}),
    ("Relu", {}),
    ("Relu", {}),
    ("Abs", {}),
    ("Elu", {"alpha": 0.5}),
    ("Erf", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", {}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Mish", {}),
    ("Neg", {}),
    ("Sigmoid", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Tanh", {}),
)
"""Celu is missing: ONNX has it in float32 alone, and these graphs are in float64."""


def activation(growing: Growing) -> None:
    """Any activation with a row that takes every number."""
    if growing.chance(0.15):
        bounds = growing.pick((-0.5, 1.5), (0.0, 6.0), (-1.0, None), (None, 1.0))
        operands = [None if bound is None else np.array(bound) for bound in bounds]
        growing.put("Clip", growing.shape, *operands)
        return
    kind, attributes = growing.pick(*ACTIVATIONS)
    growing.put(kind, growing.shape, **attributes)


def rare(growing: Growing) -> None:
    """Activations that need a bounded or positive number, and identities."""
    kind = growing.pick("Exp", "Sqrt", "Identity", "Dropout")
    if kind == "Exp":
        growing.bounded()
    elif kind == "Sqrt":
        growing.positive()
    growing.put(kind, growing.shape)


def operand(growing: Growing, values: tuple[float, ...]) -> Float64Array:
    """A constant that broadcasts: one number, per channel, per position, or a whole tensor."""
    shape = growing.shape
    kind = growing.pick("one", "channel", "channel", "channel", "last", "position", "whole")
    sizes = {
        "one": (1,) * growing.count(0, len(shape)),
        "channel": (*shape[1:2], *(1,) * (len(shape) - 2)),
        "last": shape[-1:],
        "position": (1, *shape[2:]) if len(shape) > 2 else shape[-1:],
        "whole": shape,
    }[kind]
    return np.asarray(growing.rng.choice(values, size=sizes), dtype=np.float64)


def arithmetic(growing: Growing) -> None:
    """A constant on either side of an operator."""
    kind = growing.pick("Mul", "Mul", "Add", "Sub", "Max", "Min", "Div")
    values = (0.5, -1.0, 2.0) if kind == "Div" else (-1.5, -0.5, 0.0, 0.0, 1.0, 1.5)
    constant = operand(growing, values)
    first = growing.chance(0.3)
    if kind == "Div" and first:
        growing.positive()
    pair: list[Any] = [constant, growing.last] if first else [growing.last, constant]
    growing.read(kind, growing.shape, pair)


def power(growing: Growing) -> None:
    """Pow by constants, or of constants."""
    growing.positive()
    if growing.chance(0.7):
        growing.put("Pow", growing.shape, operand(growing, (-1.0, 0.0, 0.5, 1.0, 2.0)))
    else:
        base = operand(growing, (0.0, 0.5, 1.0, 2.0))
        growing.read("Pow", growing.shape, [base, growing.last])


def prelu(growing: Growing) -> None:
    """A slope per channel, or one."""
    shape = growing.shape
    count = growing.pick(1, shape[1], shape[1])
    slope = growing.rng.choice([-0.5, 0.0, 0.25, 1.0], size=(count, *(1,) * (len(shape) - 2)))
    growing.put("PRelu", shape, np.asarray(slope))


def norm(growing: Growing) -> None:
    """A batch norm that stays, since it has no layer to go into."""
    if len(growing.shape) < 2:
        return
    count = growing.shape[1]
    gamma = growing.rng.choice([-1.0, 0.0, 0.5, 1.5], size=count)
    spread = growing.rng.uniform(0.5, 2.0, size=count)
    parameters = gamma, growing.biases(count), growing.rng.normal(size=count), spread
    growing.put("BatchNormalization", growing.shape, *parameters)


def border(growing: Growing) -> None:
    """An operator without a row."""
    if growing.is_image and growing.chance(0.5):
        growing.put("LRN", growing.shape, size=3)
    else:
        growing.put("Selu", growing.shape)


STEPS: dict[str, Step] = {
    "activation": activation,
    "rare": rare,
    "arithmetic": arithmetic,
    "power": power,
    "prelu": prelu,
    "norm": norm,
    "border": border,
}
