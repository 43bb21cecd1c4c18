"""Reads one operator node of an ONNX file, with the QDQ nodes around it, into its integer form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from deploykit.emit.onnx_format import onnx_alpha
from deploykit.emit.onnx_operands import Operands
from deploykit.emit.onnx_parts import attribute, refuse_other_attributes, window
from deploykit.emit.onnx_reader_moves import MOVES, WINDOW_ATTRIBUTES
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Conv,
    Function,
    GlobalAveragePool,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    Minimum,
    Mul,
    Operator,
    Sub,
)


def read_operator(operands: Operands, node: NodeProto) -> Operator:
    """The integer operator of a node between its DequantizeLinear and QuantizeLinear nodes."""
    if node.op_type not in READ:
        raise UnsupportedOperatorError(
            f"{node.op_type} {node.name!r} has no integer form; the reader knows "
            f"{', '.join(sorted(READ))}."
        )
    return READ[node.op_type](operands, node)


def _conv(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, (*WINDOW_ATTRIBUTES, "group"))
    source, weight = operands.activation(node, 0), operands.weight(node)
    bias = operands.bias(node, source, weight)
    geometry = window(node, weight.values.shape[2:])
    groups = int(str(attribute(node, "group", 1)))
    return Conv(node.name, source, operands.requantized(node), weight, bias, geometry, groups)


def _linear(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, ("transB",))
    if attribute(node, "transB", 0) != 1:
        raise GraphError(f"Gemm {node.name!r} has transB=0; the integer form has [O, I] weights.")
    source, weight = operands.activation(node, 0), operands.weight(node)
    bias = operands.bias(node, source, weight)
    return Linear(node.name, source, operands.requantized(node), weight, bias)


def _binary(operands: Operands, node: NodeProto) -> Operator:
    right = operands.mirrored(node, 1)
    if node.op_type == "Add" and right is not None:
        return Sub(node.name, operands.activation(node, 0), right, operands.requantized(node))
    left, right = operands.operand(node, 0), operands.operand(node, 1)
    kind = Add if node.op_type == "Add" else Mul
    return kind(node.name, left, right, operands.requantized(node))


def _extreme(operands: Operands, node: NodeProto) -> Operator:
    if len(node.input) != 2:
        raise GraphError(f"{node.op_type} {node.name!r} compares {len(node.input)} tensors, not 2.")
    output = operands.tensor(node.output[0])
    left, right = (operands.compared(node, index, output) for index in (0, 1))
    kind = Maximum if node.op_type == "Max" else Minimum
    return kind(node.name, left, right, output)


def _lookup(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, ("approximate",))
    function = Function(node.op_type.lower())
    if attribute(node, "approximate", b"none") == b"tanh":
        function = Function.GELU_TANH
    return Lookup(node.name, operands.activation(node, 0), operands.requantized(node), function)


def _leaky_relu(operands: Operands, node: NodeProto) -> Operator:
    alpha = float(str(attribute(node, "alpha", 0.01)))
    slope = round(alpha * 256)
    if slope < 1 or np.float32(alpha) != np.float32(onnx_alpha(slope)):
        raise GraphError(f"LeakyRelu {node.name!r} has alpha {alpha}, which is no whole 1/256.")
    return LeakyRelu(node.name, operands.activation(node, 0), operands.requantized(node), slope)


def _arg_max(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, ("axis", "keepdims"))
    output, axis = str(node.output[0]), int(str(attribute(node, "axis", 0)))
    if not operands.parts.is_output(output):
        output = str(operands.parts.only_reader(node, "Cast").output[0])
    return ArgMax(node.name, operands.integers(node), output, axis)


def _global_average_pool(operands: Operands, node: NodeProto) -> Operator:
    return GlobalAveragePool(node.name, operands.activation(node, 0), operands.requantized(node))


READ: Mapping[str, Callable[[Operands, NodeProto], Operator]] = {
    **MOVES,
    "Add": _binary,
    "ArgMax": _arg_max,
    "Conv": _conv,
    "Elu": _lookup,
    "Erf": _lookup,
    "Exp": _lookup,
    "Gelu": _lookup,
    "Gemm": _linear,
    "GlobalAveragePool": _global_average_pool,
    "Max": _extreme,
    "Min": _extreme,
    "LeakyRelu": _leaky_relu,
    "Mul": _binary,
    "Sigmoid": _lookup,
    "Softsign": _lookup,
    "Tanh": _lookup,
}
