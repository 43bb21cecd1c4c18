"""Elementwise functions of one tensor: value, turning points, and steepest slope."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from deploykit.graph import activations
from deploykit.graph.edit import attribute_float, attribute_string, floats
from deploykit.graph.ranges.span import Span
from deploykit.spec.arrays import Float64Array


@dataclass(frozen=True)
class Curve:
    """f, the places where it turns between rising and falling, and the largest |f'|."""

    function: Callable[[Float64Array], Float64Array]
    slope: float = 1.0
    turns: tuple[float, ...] = ()

    def over(self, span: Span) -> Span:
        """The range of f over each channel's range; |f(x') - f(x)| <= slope * |x' - x|."""
        ends = [self.function(span.low), self.function(span.high)]
        for turn in self.turns:
            inside = np.minimum(np.maximum(turn, span.low), span.high)
            ends.append(self.function(inside))
        return Span(np.minimum.reduce(ends), np.maximum.reduce(ends), self.slope * span.error)


CurveOf = Callable[[ir.Node], Curve | None]
"""The curve of a node; None where its form is not bounded here."""


def _clip(node: ir.Node) -> Curve | None:
    bounds = [attribute_float(node, "min", -math.inf), attribute_float(node, "max", math.inf)]
    for index, value in enumerate(node.inputs[1:3]):
        if value is not None:
            held = floats(value)
            if held is None:
                return None
            bounds[index] = float(held.reshape(()))
    low, high = bounds
    return Curve(lambda x: np.minimum(np.maximum(x, low), high))


def _leaky(node: ir.Node) -> Curve:
    alpha = attribute_float(node, "alpha", 0.01)
    return Curve(partial(activations.leaky_relu, node), max(1.0, abs(alpha)), (0.0,))


def _elu(node: ir.Node) -> Curve:
    alpha = attribute_float(node, "alpha", 1.0)
    return Curve(partial(activations.elu, node), max(1.0, abs(alpha)), (0.0,))


def _hard_sigmoid(node: ir.Node) -> Curve:
    alpha = attribute_float(node, "alpha", 0.2)
    return Curve(partial(activations.hard_sigmoid, node), abs(alpha))


def _gelu(node: ir.Node) -> Curve:
    """x * Phi(x): one minimum, near -0.75179; slope at most 1.12904 (tanh form: 1.12911)."""
    turns = (-0.75180, -0.75179, -0.75178)
    if attribute_string(node, "approximate", "none") == "tanh":
        turns = (-0.7526, -0.7524, -0.7518)
    return Curve(lambda x: _bounded(x, partial(activations.gelu, node)), 1.13, turns)


def _bounded(x: Float64Array, function: Callable[[Float64Array], Float64Array]) -> Float64Array:
    """x * (something that goes from 0 to 1): 0 at -infinity, x at infinity."""
    result = function(np.clip(x, -1e3, 1e3))
    return np.where(x > 1e3, x, result)


CURVES: Mapping[str, CurveOf] = {
    "Clip": _clip,
    "Elu": _elu,
    "Erf": lambda _: Curve(activations.erf, 2 / math.sqrt(math.pi)),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _: Curve(lambda x: _bounded(x, activations.hard_swish), 1.5, (-3.0, -1.5)),
    "Identity": lambda _: Curve(lambda x: x),
    "LeakyRelu": _leaky,
    "Neg": lambda _: Curve(lambda x: -x),
    "Relu": lambda _: Curve(lambda x: np.maximum(x, 0.0)),
    "Sigmoid": lambda _: Curve(activations.sigmoid, 0.25),
    "Softplus": lambda _: Curve(activations.softplus),
    "Tanh": lambda _: Curve(np.tanh),
}
"""An operator whose output is f(input), position by position."""
