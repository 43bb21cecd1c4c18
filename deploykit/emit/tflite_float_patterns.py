"""Operators that a float graph spells out with others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import onnx_ir as ir

from deploykit.emit import tflite_float_node as read


@dataclass(frozen=True)
class SpelledGelu:
    """y = x / 2 * (1 + erf(x / sqrt(2))). last: the node that gives y; inner: all others."""

    value: ir.Value
    last: ir.Node
    inner: tuple[ir.Node, ...]


def spelled_gelus(nodes: Iterable[ir.Node]) -> list[SpelledGelu]:
    """Every Gelu that is spelled by Erf, its factor 1/2 on x, on the sum, or on the product."""
    found = (_around(node) for node in nodes if node.op_type == "Erf")
    return [gelu for gelu in found if gelu is not None]


def _around(erf: ir.Node) -> SpelledGelu | None:
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    plus = read.only_reader(erf.outputs[0])
    if scaled is None or plus is None or plus.op_type != "Add" or _number(plus) != 1.0:
        return None
    if read.only_reader(scaled.outputs[0]) is not erf:
        return None
    factor, value = _number(scaled), _computed(scaled)
    factor = 1 / factor if scaled.op_type == "Div" and factor else factor
    if value is None or factor is None or abs(factor - 1 / sqrt(2)) > 1e-6:
        return None
    if scaled.op_type not in {"Mul", "Div"}:
        return None
    inner = [scaled, erf, plus]
    half = met = False
    current = plus
    while not (half and met):
        following = read.only_reader(current.outputs[0])
        if following is None or following.op_type not in {"Mul", "Div"}:
            return None
        halves = _halves(following)
        other = _other(following, current.outputs[0])
        if halves and not half:
            half = True
        elif following.op_type == "Mul" and other is value and not met:
            met = True
        elif following.op_type == "Mul" and not met and not half and _is_half_of(other, value):
            half = met = True
            producer = other.producer() if other is not None else None
            assert producer is not None
            inner.append(producer)
        else:
            return None
        inner.append(following)
        current = following
    return SpelledGelu(value, current, tuple(node for node in inner if node is not current))


def _is_half_of(value: ir.Value | None, whole: ir.Value) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or value is None or read.only_reader(value) is None:
        return False
    return _halves(producer) and _computed(producer) is whole


def _halves(node: ir.Node) -> bool:
    """Whether a node multiplies by 1/2 or divides by 2."""
    number = _number(node)
    return (node.op_type, number) in {("Mul", 0.5), ("Div", 2.0)}


def _number(node: ir.Node) -> float | None:
    """The constant operand of a binary node, where it is one number; a divisor, not a dividend."""
    for position in (1,) if node.op_type == "Div" else (0, 1):
        values = read.term(node, position)
        if values is not None and values.size == 1:
            return values.item()
    return None


def _computed(node: ir.Node) -> ir.Value | None:
    """The one operand of a binary node that is no constant."""
    computed = [value for value in node.inputs if read.constant(value) is None]
    return computed[0] if len(computed) == 1 else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The operand of a binary node beside `value`."""
    others = [operand for operand in node.inputs if operand is not value]
    return others[0] if len(others) == 1 else None
