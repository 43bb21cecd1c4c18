"""Arithmetic in the sums, products and comparisons that have an integer form.

    x - c = x + (-c)           c - x = -1 * x + c         x / c = x * (1/c)
    -x    = -1 * x             |x|   = max(x, -1 * x)     x^n   = x * x * ...     n = 2, 3, 4
    max(x, c), min(x, c) = clip(x)                        one number c
    Sum, Mean, Max, Min of many = one after another       their constants as one, the last

A product with -1 on its operand's own scale moves no integer but by its sign.
Source: ONNX operator specification, the operators of these names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant, floats
from deploykit.graph.lowering.building import Replacement, replace_each, scalar
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

HIGHEST_POWER = 4
JOINED = {"Sum": "Add", "Mean": "Add", "Max": "Max", "Min": "Min"}
"""What joins two of the operands of an operator of many."""

COMBINED = {"Add": np.add, "Max": np.maximum, "Min": np.minimum}
"""The same of constants."""


def lower_arithmetic(network: Network) -> Rewritten:
    """Replace every node that has a form above."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    rule = RULES.get(node.op_type)
    floating = node.outputs[0].dtype is not None and node.outputs[0].dtype.is_floating_point()
    if rule is None or not floating or static_shape(node.outputs[0]) is None:
        return False
    return rule[0](node)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    shape = static_shape(node.outputs[0])
    assert shape is not None
    new = Replacement(graph, node)
    new.finish(RULES[node.op_type][1](new, node, shape))


Shape = tuple[int, ...]
Rule = tuple[Callable[[ir.Node], bool], Callable[[Replacement, ir.Node, Shape], ir.Value]]


def _one_constant(node: ir.Node) -> bool:
    return [constant(value) is None for value in node.inputs] in ([True, False], [False, True])


def _difference(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    left, right = node.inputs
    subtracted = floats(right)
    if subtracted is not None:
        return new.node("Add", [left, new.constant("negated", -subtracted)], "sum", shape)
    return new.node("Add", [_negated(new, right, shape), left], "sum", shape)


def _divides(node: ir.Node) -> bool:
    divisor = floats(node.inputs[1])
    if divisor is None or constant(node.inputs[0]) is not None:
        return False
    return bool(np.all(np.isfinite(1.0 / np.where(divisor == 0.0, np.nan, divisor))))


def _quotient(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    divisor = floats(node.inputs[1])
    assert divisor is not None
    return new.node("Mul", [node.inputs[0], new.constant("factor", 1.0 / divisor)], "part", shape)


def _negated(new: Replacement, value: ir.Value | None, shape: Shape) -> ir.Value:
    own = static_shape(value) or shape
    return new.node("Mul", [value, new.constant("minus", scalar(-1.0, len(own)))], "negated", own)


def _absolute(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    value = node.inputs[0]
    return new.node("Max", [value, _negated(new, value, shape)], "absolute", shape)


def _exponent(node: ir.Node) -> int:
    """The whole number that a Pow raises to; 0 where there is none from 2 to HIGHEST_POWER."""
    held = floats(node.inputs[1])
    if held is None or held.size != 1 or constant(node.inputs[0]) is not None:
        return 0
    number = float(held.reshape(()))
    return int(number) if number in range(2, HIGHEST_POWER + 1) else 0


def _power(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    value, exponent = node.inputs[0], _exponent(node)
    square = new.node("Mul", [value, value], "square", shape)
    if exponent == 2:
        return square
    return new.node("Mul", [square, value if exponent == 3 else square], "power", shape)


def _bound(node: ir.Node) -> float | None:
    """The one number that a Max or Min of two compares with."""
    held = [array for value in node.inputs if (array := floats(value)) is not None]
    single = len(node.inputs) == 2 and len(held) == 1 and held[0].size == 1
    return float(held[0].reshape(())) if single else None


def _compares(node: ir.Node) -> bool:
    return _bound(node) is not None or _many(node)


def _extreme(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    bound = _bound(node)
    if bound is None:
        return _joined(new, node, shape)
    source = next(value for value in node.inputs if constant(value) is None)
    assert source is not None
    return _clipped(new, node.op_type, source, bound, shape)


def _clipped(
    new: Replacement, operator: str, source: ir.Value, bound: float, shape: Shape
) -> ir.Value:
    held = new.constant("bound", scalar(bound, 0))
    bounds = [held] if operator == "Max" else [None, held]
    return new.node("Clip", [source, *bounds], "clipped", shape)


def _many(node: ir.Node) -> bool:
    """More than two operands, of which one is computed, or a sum or mean that is spelled so."""
    computed = [value for value in node.inputs if value is not None and constant(value) is None]
    spelled = 2 if node.op_type in {"Sum", "Mean"} else 3
    whole = all(value is not None for value in node.inputs)
    return whole and bool(computed) and len(node.inputs) >= spelled


def _joined(new: Replacement, node: ir.Node, shape: Shape) -> ir.Value:
    operator = JOINED[node.op_type]

    def join(left: ir.Value, right: ir.Value) -> ir.Value:
        sizes = [static_shape(value) for value in (left, right)]
        both = np.broadcast_shapes(*(size for size in sizes if size is not None))
        return new.node(operator, [left, right], "joined", both)

    held = [array for value in node.inputs if (array := floats(value)) is not None]
    computed = (value for value in node.inputs if value is not None and constant(value) is None)
    total: ir.Value = reduce(join, computed)
    if held:
        whole = reduce(COMBINED[operator], held)
        if operator != "Add" and whole.size == 1:
            total = _clipped(new, operator, total, float(whole.reshape(())), shape)
        else:
            total = join(total, new.constant("held", whole))
    if node.op_type != "Mean":
        return total
    share = new.constant("share", scalar(1.0 / len(node.inputs), len(shape)))
    return new.node("Mul", [total, share], "mean", shape)


def _one_activation(node: ir.Node) -> bool:
    return constant(node.inputs[0]) is None


RULES: Mapping[str, Rule] = {
    "Abs": (_one_activation, _absolute),
    "Div": (_divides, _quotient),
    "Max": (_compares, _extreme),
    "Mean": (_many, _joined),
    "Min": (_compares, _extreme),
    "Neg": (
        _one_activation,
        lambda new, node, shape: _negated(new, node.inputs[0], shape),
    ),
    "Pow": (lambda node: _exponent(node) > 0, _power),
    "Sub": (_one_constant, _difference),
    "Sum": (_many, _joined),
}
"""By operator: which nodes, and what stands for one of them."""
