"""Parts of the float graph that have no integer operator: rearrangements, and float islands.

A region is a set of nodes with one result that others read; its nodes are read by nobody else. One
that only rearranges works on the integers themselves. Any other is an island: its inputs' real
values go through it in float, and its result is rounded. Islands are as small as accuracy allows:
what lies between two nodes that need float belongs to the island too, and what leads to a
denominator or into a softmax, see `membership`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.quantize.membership import REARRANGING, membership_of
from deploykit.quantize.nodes import activations
from deploykit.quantize.operators import Kind
from deploykit.spec.network import Network, static_shape
from deploykit.spec.stored_weight import WORTH_IT, rounded_weight

IN_FLOAT = frozenset(
    (
        "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv",
        "ConvTranspose", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "GRU", "Gather", "Gelu",
        "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid",
        "HardSwish", "InstanceNormalization", "LSTM", "LayerNormalization", "LeakyRelu", "Less",
        "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg",
        "Not", "Or", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceSum", "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToDepth",
        "Split", "Sqrt", "Sub", "Tanh", "Where",
    )
)  # fmt: skip
"""Operators that an island may hold beside those that rearrange."""

COMBINING = frozenset(
    (
        "Add", "And", "Concat", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
        "MatMul", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where",
    )
)  # fmt: skip
"""Operators of which any input may be computed."""

COMPUTED: Mapping[str, frozenset[int]] = {
    "GRU": frozenset((0, 5)),
    "LSTM": frozenset((0, 5, 6)),
}
"""Which inputs of an operator may be computed; of all others only the first."""


@dataclass(frozen=True)
class Region:
    """nodes: in running order, the last one computes `output`. inputs: activations it reads."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    output: ir.Value

    @property
    def kind(self) -> Kind:
        """REARRANGE, or ISLAND where anything is computed."""
        moves = all(node.op_type in REARRANGING for node in self.nodes)
        return Kind.REARRANGE if moves and len(self.inputs) == 1 else Kind.ISLAND


def find_regions(
    network: Network, apart: Collection[ir.Node], in_float: Collection[ir.Node] = frozenset()
) -> Mapping[ir.Node, Region]:
    """By its last node, every region of a canonical, lowered graph.

    apart: nodes that stay outside. in_float: nodes that belong to regions though they have an
    integer form.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    nodes = [node for node in network.model.graph if node not in apart]
    homes = membership_of(nodes, in_float).homes
    members: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        if node in homes:
            members.setdefault(homes[node], []).append(node)
    return {last: _region(last, inside) for last, inside in members.items()}


def _region(last: ir.Node, nodes: list[ir.Node]) -> Region:
    for node in nodes:
        known = node.op_type in REARRANGING | IN_FLOAT and node.domain in {"", "ai.onnx"}
        if node.op_type == "Cast" and not _of_condition(node):
            raise UnsupportedOperatorError(
                f"{node.name}: operator Cast makes {_type(node.outputs[0])} of "
                f"{_type(node.inputs[0])}; only conditions become numbers, in float32. End the "
                "network before it, and leave whole numbers to the app"
            )
        if not known:
            raise UnsupportedOperatorError(
                f"{node.name}: operator {node.op_type} has neither an integer form here nor one in "
                "float that both formats have. Replace it in the network, or end the network "
                "before it"
            )
        parameters = () if node.op_type in COMBINING else _parameters(node)
        if any(value is not None and value.const_value is None for value in parameters):
            raise UnsupportedOperatorError(
                f"{node.name}: operator {node.op_type} has parameters that the network computes, "
                "which neither format takes. Make them constants, or end the network before it"
            )
    inside = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(value for node in nodes for value in activations(node))
    outputs = [value for value in last.outputs if value.uses() or value.is_graph_output()]
    if len(outputs) != 1 or static_shape(outputs[0]) is None:
        raise UnsupportedOperatorError(
            f"{last.name}: operator {last.op_type} has {len(outputs)} outputs that are read, or "
            "one of unknown shape, and no integer form. Replace it in the network, or end the "
            "network before it"
        )
    return Region(tuple(nodes), tuple(value for value in read if value not in inside), outputs[0])


def _type(value: ir.Value | None) -> str:
    return "nothing" if value is None or value.dtype is None else value.dtype.name.lower()


def _of_condition(node: ir.Node) -> bool:
    """Whether a Cast makes numbers, 0 and 1, of a condition."""
    source = node.inputs[0]
    given = source is not None and source.dtype == ir.DataType.BOOL
    return given and node.outputs[0].dtype == ir.DataType.FLOAT


def _parameters(node: ir.Node) -> list[ir.Value | None]:
    """The inputs that have to be constants."""
    computed = COMPUTED.get(node.op_type, frozenset((0,)))
    return [value for place, value in enumerate(node.inputs) if place not in computed]


def body_of(network: Network, region: Region) -> Network:
    """A region as a graph of its own; inputs in the region's order, large weights rounded.

    The weights of its matrices and recurrent layers are those that int8 can hold, see
    spec.stored_weight, but for layers that the user left in float.
    """
    rounded = _rounded_weights(region, network.in_float)
    values: dict[ir.Value, ir.Value] = {}
    constants: dict[str, ir.Value] = {}

    def copied(value: ir.Value) -> ir.Value:
        if value not in values:
            held = rounded.get(value, value.const_value)
            made = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=held)
            values[value] = made
            if made.const_value is not None:
                constants[str(made.name)] = made
        return values[value]

    inputs = [copied(value) for value in region.inputs]
    nodes = [
        ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else copied(value) for value in node.inputs],
            list(node.attributes.values()),
            outputs=[copied(value) for value in node.outputs],
            name=node.name,
        )
        for node in region.nodes
    ]
    opsets = network.model.opset_imports
    graph = ir.Graph(
        inputs, [values[region.output]], nodes=nodes, initializers=list(constants.values()),
        opset_imports=opsets, name=str(nodes[-1].name),
    )  # fmt: skip
    return Network(ir.Model(graph, ir_version=network.model.ir_version), {})


def _rounded_weights(
    region: Region, in_float: Collection[str]
) -> dict[ir.Value, ir.TensorProtocol]:
    found: dict[ir.Value, ir.TensorProtocol] = {}
    for node in region.nodes:
        if node.name in in_float:
            continue
        for index, axis in _weight_axes(node).items():
            value = node.inputs[index] if len(node.inputs) > index else None
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or tensor.size < WORTH_IT:
                continue
            array = np.asarray(tensor.numpy(), dtype=np.float32)
            found[value] = ir.tensor(rounded_weight(array, axis % array.ndim), name=value.name)
    return found


def _weight_axes(node: ir.Node) -> Mapping[int, int]:
    """By input that is a weight, the axis of what it gives: one scale for each."""
    match node.op_type:
        case "GRU" | "LSTM":
            return {1: 1, 2: 1}
        case "MatMul":
            return {1: -1}
        case "Gemm":
            return {1: 0 if node.attributes.get_int("transB", 0) else 1}
        case "Conv":
            return {1: 0}
        case _:
            return {}
