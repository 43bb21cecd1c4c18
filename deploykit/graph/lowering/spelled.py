"""Activations that were spelled out become one node again.

    Gelu(x)     = x/2 * (1 + erf(x / sqrt 2)), or tanh(sqrt(2/pi) * (x + 0.044715 x^3)) for erf
    Mish(x)     = x * tanh(softplus(x))
    Sigmoid(x)  = 1 / (1 + exp(-x))
    SiLU(x)     = x / (1 + exp(-x)),                     written as x * Sigmoid(x)
    Softplus(x) = log(1 + exp(x)),                       or x itself above a threshold
    Softplus(b x) / b                                    likewise
    k f(x), k > 0                                        of each, written as a product with f(x)

in whatever order their steps stand: exporters for operator sets before 20 write them so, and torch
writes every softplus with its threshold. In integers every step would round. An expression of one
tensor is recognised by its values. The factor k is what stays of a half that another layer took in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import floats, readers
from deploykit.graph.lowering.building import Replacement, scalar
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.functions import FUNCTIONS
from deploykit.spec.network import Network, static_shape
from deploykit.spec.operators import Function

POINTS: Float64Array = np.concatenate([np.linspace(-6.0, 6.0, 25), [-40.0, -15.0, 15.0, 40.0]])
"""The outer ones lie beyond the threshold at which torch's softplus is x."""
ALIKE = 1e-5
"""Exporters write sqrt(1/2) and sqrt(2/pi) with six digits and more."""
LONGEST = 12
"""Nodes of an expression."""

STEPS: Mapping[str, Callable[..., Float64Array]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Erf": FUNCTIONS[Function.ERF],
    "Exp": np.exp,
    "Greater": np.greater,
    "Log": np.log,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0.0),
    "Softplus": FUNCTIONS[Function.SOFTPLUS],
    "Sub": np.subtract,
    "Tanh": FUNCTIONS[Function.TANH],
    "Where": np.where,
}
ANCHORS = frozenset({"Erf", "Exp", "Softplus", "Tanh"})
ENDS = frozenset({"Add", "Div", "Log", "Mul", "Reciprocal", "Where"})
"""Operators that an expression may end in."""


@dataclass(frozen=True)
class Named:
    """An activation: its values, and the node that stands for it."""

    values: Callable[[Float64Array], Float64Array]
    op_type: str
    attributes: Mapping[str, str]


def _silu(x: Float64Array) -> Float64Array:
    return np.asarray(x * FUNCTIONS[Function.SIGMOID](x))


GATED = Named(_silu, "Sigmoid", {})
"""The one that is the node's product with x."""
SOFTPLUS = Named(FUNCTIONS[Function.SOFTPLUS], "Softplus", {})
NAMES = (
    Named(FUNCTIONS[Function.GELU], "Gelu", {}),
    Named(FUNCTIONS[Function.GELU_TANH], "Gelu", {"approximate": "tanh"}),
    Named(FUNCTIONS[Function.MISH], "Mish", {}),
    Named(FUNCTIONS[Function.SIGMOID], "Sigmoid", {}),
    SOFTPLUS,
    GATED,
)


@dataclass(frozen=True)
class Found:
    """A node computes share * named(steepness * source)."""

    source: ir.Value
    named: Named
    steepness: float = 1.0
    share: float = 1.0


def name_activations(network: Network) -> Rewritten:
    """Put one node in the place of each expression above."""
    if not any(node.op_type in ANCHORS for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    changed = False
    for node in reversed(list(model.graph)):
        found = _found(node) if node.graph is not None and node.op_type in ENDS else None
        if found is None:
            continue
        changed = True
        inner = _expression(node.outputs[0])
        _replace(model.graph, node, found)
        for left in inner[1:]:
            if not left.outputs[0].uses():
                model.graph.remove(left, safe=True)
    if not changed:
        return Rewritten(network)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _replace(graph: ir.Graph, node: ir.Node, found: Found) -> None:
    shape, source, named = static_shape(node.outputs[0]), found.source, found.named
    assert shape is not None
    new = Replacement(graph, node)
    if found.steepness != 1.0:
        factor = new.constant("steepness", scalar(found.steepness, len(shape)))
        source = new.node("Mul", [source, factor], "steep", shape)
    called = named.op_type.lower()
    result = new.node(named.op_type, [source], called, shape, named.attributes)
    if named is GATED:
        result = new.node("Mul", [source, result], "gated", shape)
    if found.share != 1.0:
        share = new.constant("share", scalar(found.share, len(shape)))
        result = new.node("Mul", [result, share], "flat", shape)
    new.finish(result)


def _found(node: ir.Node) -> Found | None:
    shape, inner = static_shape(node.outputs[0]), _expression(node.outputs[0])
    if shape is None or not any(one.op_type in ANCHORS for one in inner):
        return None
    for source in _sources(inner):
        if static_shape(source) != shape:
            continue
        values = _evaluate(node.outputs[0], source, frozenset(inner))
        if values is None or values.shape != POINTS.shape:
            continue
        for named in NAMES:
            share = _share(values, named.values(POINTS))
            if share is not None:
                return Found(source, named, share=share)
        for steepness in _factors(inner):
            if _alike(values, SOFTPLUS.values(steepness * POINTS) / steepness):
                return Found(source, SOFTPLUS, steepness, 1.0 / steepness)
    return None


def _share(values: Float64Array, function: Float64Array) -> float | None:
    """The positive factor by which values are a function's; None where they are not.

    At the last of POINTS every function of NAMES is far from zero.
    """
    share = float(values[-1] / function[-1])
    if not 0.0 < share < np.inf:
        return None
    if abs(share - 1.0) < ALIKE:
        share = 1.0
    return share if _alike(values / share, function) else None


def _alike(values: Float64Array, wanted: Float64Array) -> bool:
    return bool(np.allclose(values, wanted, rtol=0.0, atol=ALIKE))


def _factors(inner: list[ir.Node]) -> Iterator[float]:
    """The positive numbers that the nodes multiply or divide by."""
    for node in inner:
        for value in node.inputs if node.op_type in {"Mul", "Div"} else ():
            held = floats(value)
            if held is not None and held.size == 1 and held.item() > 0.0:
                yield held.item()


def _expression(result: ir.Value) -> list[ir.Node]:
    """The nodes behind a tensor that nobody else reads, the last first, at most LONGEST."""
    last = result.producer()
    found = [] if last is None or last.op_type not in STEPS else [last]
    for node in found:
        for value in node.inputs:
            maker = None if value is None else value.producer()
            if value is None or maker is None or maker in found or maker.op_type not in STEPS:
                continue
            inside = all(reader in found for reader in readers(value))
            if inside and not value.is_graph_output() and len(found) < LONGEST:
                found.append(maker)
    return found


def _sources(inner: list[ir.Node]) -> Iterator[ir.Value]:
    """What the nodes read, each once."""
    read = (value for node in inner for value in node.inputs if value is not None)
    yield from (value for value in dict.fromkeys(read) if floats(value) is None)


def _evaluate(result: ir.Value, source: ir.Value, inner: frozenset[ir.Node]) -> Float64Array | None:
    """The tensor's values at POINTS of `source`; None where it depends on more than that."""
    if result is source:
        return POINTS
    held = floats(result)
    if held is not None:
        return held.reshape(()) if held.size == 1 else None
    maker = result.producer()
    if maker is None or maker not in inner:
        return None
    read = [value for value in maker.inputs if value is not None]
    operands = [_evaluate(value, source, inner) for value in read]
    if any(operand is None for operand in operands):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(STEPS[maker.op_type](*operands))
