"""Which nodes make one region: those without an integer form, and what belongs to them.

A node with an integer form that one region alone reads belongs to it where rounding would cost
accuracy and an operator:

    between     elementwise, and all that it reads comes from float: MatMul, Mul, Add, Softmax
    denominator elementwise, on the way to what is divided by, or whose root, logarithm or power is
                taken: near zero a step of eight bits is all of the value, and 0 / 0 is no number
    scores      sums and products on the way into a softmax: masks are constants of 1e4 and more,
                beside which eight bits hold nothing else

Layers with weights stay outside, and so does a Relu that such a layer takes in; those that the user
leaves in float are regions themselves, with that Relu.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from deploykit.quantize.nodes import activations
from deploykit.quantize.operators import BINARY, SHARING, WEIGHTED, Kind, kind_of

REARRANGING = frozenset(("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that put the same elements into another shape or order."""

COMPARING = frozenset(
    (Kind.MAX_POOL, Kind.CLAMP, Kind.MAXIMUM, Kind.MINIMUM, Kind.LEAKY_RELU)
)  # fmt: skip
PLACING = SHARING - COMPARING
"""Kinds that put elements elsewhere and compare none."""

ELEMENTWISE = BINARY | (COMPARING - {Kind.MAX_POOL}) | {Kind.LOOKUP}

WITHOUT_FLOAT = frozenset(("Erf", "Softsign", "ThresholdedRelu"))
"""Operators that TFLite has as integer tables alone."""

DELICATE: Mapping[str, tuple[int, frozenset[Kind]]] = {
    "Div": (1, ELEMENTWISE),
    "Log": (0, ELEMENTWISE),
    "LogSoftmax": (0, BINARY),
    "Pow": (0, ELEMENTWISE),
    "Reciprocal": (0, ELEMENTWISE),
    "Softmax": (0, BINARY),
    "Sqrt": (0, ELEMENTWISE),
}
"""By operator, which input is not to be rounded on its way, and through which kinds it may come."""

PASSING = REARRANGING | {"Add", "Expand", "Mul", "ReduceMean", "ReduceSum", "Sub", "Where"}
"""Operators of an island whose inputs are as delicate as their output."""


@dataclass(frozen=True)
class Membership:
    """homes: by node of a region, the region's last node.

    delicate: through which kinds a value that a region reads may lead to what rounding would harm.
    """

    homes: Mapping[ir.Node, ir.Node]
    delicate: Mapping[ir.Value, frozenset[Kind]]


def membership_of(
    nodes: Collection[ir.Node], in_float: Collection[ir.Node] = frozenset()
) -> Membership:
    """Of nodes in graph order. in_float: those that get no integer form though they have one."""
    homes: dict[ir.Node, ir.Node] = {}
    computing: set[ir.Node] = set()
    delicate: dict[ir.Value, frozenset[Kind]] = {}

    def protect(values: Collection[ir.Value], kinds: frozenset[Kind]) -> None:
        for value in values:
            delicate[value] = delicate.get(value, frozenset()) | kinds

    for node in reversed(list(nodes)):
        kind = None if node in in_float else kind_of(node)
        home = _only_region(node, homes)
        through = delicate.get(node.outputs[0], frozenset())
        if kind is None:
            homes[node] = node if home is None else home
            if node.op_type not in REARRANGING:
                computing.add(homes[node])
            if node.op_type in DELICATE:
                place, kinds = DELICATE[node.op_type]
                protect([value for value in node.inputs[place : place + 1] if value], kinds)
            if node.op_type in PASSING:
                protect(activations(node), through)
        elif home is not None and _belongs(node, kind, home in computing, through, in_float):
            homes[node] = home
            if kind in ELEMENTWISE | PLACING:
                protect(activations(node), through)
    return Membership(homes, delicate)


def _only_region(node: ir.Node, homes: Mapping[ir.Node, ir.Node]) -> ir.Node | None:
    """The region that alone reads a node, None where anything else does."""
    around = {homes.get(use.node) for value in node.outputs for use in value.uses()}
    public = any(value.is_graph_output() for value in node.outputs)
    return around.pop() if len(around) == 1 and not public else None


def _belongs(
    node: ir.Node,
    kind: Kind,
    computing: bool,
    through: Collection[Kind],
    in_float: Collection[ir.Node],
) -> bool:
    """Whether a node with an integer form, read by one region alone, belongs to it.

    computing: whether the region computes anything behind the node.
    """
    if kind in WEIGHTED or node.op_type in WITHOUT_FLOAT or not (kind in PLACING or computing):
        return False
    if kind in through and not taken_in(node, kind):
        return True
    return all(_from_float(value, in_float) for value in activations(node))


def taken_in(node: ir.Node, kind: Kind) -> bool:
    """Whether a layer with weights computes what a Relu or Clip bounds."""
    maker = node.inputs[0].producer() if kind is Kind.CLAMP and node.inputs[0] else None
    return maker is not None and kind_of(maker) in WEIGHTED


def _from_float(value: ir.Value, in_float: Collection[ir.Node]) -> bool:
    """Whether a value comes from what has no integer form, through what belongs to an island."""
    node = value.producer()
    if node is None:
        return False
    kind = None if node in in_float else kind_of(node)
    if kind is None and node.op_type not in REARRANGING:
        return True
    held = kind in PLACING | ELEMENTWISE and node.op_type not in WITHOUT_FLOAT
    inside = held or node.op_type in REARRANGING
    return inside and all(_from_float(source, in_float) for source in activations(node))
