"""Reads one operator node of an ONNX file, with the QDQ nodes around it, into its integer form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from deploykit.emit.onnx_parts import Parts, attribute, refuse_other_attributes, window
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.arrays import Int32Array
from deploykit.spec.operators import (
    Add,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Flatten,
    Function,
    Gather,
    GlobalAveragePool,
    IntegerWeight,
    Linear,
    Lookup,
    MaxPool,
    Mul,
    Operator,
    Repeat,
    Slice,
    SpaceToDepth,
)
from deploykit.spec.quantized import UINT8_SHIFT, ActivationTensor, ConstantTensor, as_int8

WINDOW_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations")


def read_operator(operands: Operands, node: NodeProto) -> Operator:
    """The integer operator of a node between its DequantizeLinear and QuantizeLinear nodes."""
    if node.op_type not in READ:
        raise UnsupportedOperatorError(
            f"{node.op_type} {node.name!r} has no integer form; the reader knows "
            f"{', '.join(sorted(READ))}."
        )
    return READ[node.op_type](operands, node)


class Operands:
    """What nodes read and write, as tensors of the network.

    tensors: of the network, by its own names. renamed: those names by ONNX name where they differ.
    bits: by ONNX name of the weights that use fewer than 8.
    """

    def __init__(
        self,
        parts: Parts,
        tensors: Mapping[str, ActivationTensor],
        renamed: Mapping[str, str],
        bits: Mapping[str, str],
    ) -> None:
        self.parts = parts
        self.tensors = tensors
        self.constants: dict[str, ConstantTensor] = {}
        self._renamed = renamed
        self._bits = bits

    def tensor(self, name: str) -> str:
        """The network's name of an integer tensor of the file."""
        return self._renamed.get(name, name)

    def activation(self, node: NodeProto, index: int) -> str:
        """The integer tensor behind the DequantizeLinear at one of a node's inputs."""
        dequantize = self.parts.producer(node.input[index], node, "DequantizeLinear")
        return self.tensor(dequantize.input[0])

    def operand(self, node: NodeProto, index: int) -> str:
        """The same where a constant may stand instead; the first reader's is kept."""
        dequantize = self.parts.producer(node.input[index], node, "DequantizeLinear")
        name = str(dequantize.input[0])
        if not self.parts.is_constant(name):
            return self.activation(node, index)
        values = self.parts.constant(name, dequantize)
        if values.dtype != np.uint8:
            raise GraphError(
                f"{node.op_type} {node.name!r}: the constant {name!r} is {values.dtype}; it must "
                "be uint8 with one scale and zero point."
            )
        quantization = self.parts.quantization(dequantize)
        found = ConstantTensor(name, as_int8(values), quantization)
        known = self.constants.setdefault(name, found)
        if known.quantization != quantization:
            raise GraphError(f"The constant {name!r} has {quantization} and {known.quantization}.")
        return name

    def integers(self, node: NodeProto, index: int = 0) -> str:
        """The integer tensor that a node reads as it is."""
        name = self.tensor(node.input[index])
        if name not in self.tensors:
            raise GraphError(
                f"{node.op_type} {node.name!r} reads {node.input[index]!r}, which is no uint8 "
                "activation; quantize every tensor of the graph."
            )
        return name

    def requantized(self, node: NodeProto) -> str:
        """The integer tensor that a node's real values become."""
        return self.tensor(self.parts.only_reader(node, "QuantizeLinear").output[0])

    def weight(self, node: NodeProto) -> IntegerWeight:
        """The int8 weight at a node's second input, symmetric per output channel."""
        dequantize = self.parts.producer(node.input[1], node, "DequantizeLinear")
        values, scale, zero_point = (
            self.parts.constant(name, dequantize) for name in dequantize.input
        )
        per_channel = scale.shape == values.shape[:1] and attribute(dequantize, "axis", 1) == 0
        if values.dtype != np.int8 or not per_channel or zero_point.any():
            raise GraphError(
                f"{node.op_type} {node.name!r}: the weight {dequantize.input[0]!r} must be int8, "
                "symmetric, with one scale per output channel along axis 0."
            )
        name = dequantize.input[0]
        return IntegerWeight(name, values, scale, int(self._bits.get(name, "8")))

    def bias(self, node: NodeProto, source: str, weight: IntegerWeight) -> Int32Array:
        """The int32 bias at a node's third input, whose scale must be sx * sw."""
        if len(node.input) < 3:
            raise GraphError(f"{node.op_type} {node.name!r} has no bias; write one of zeros.")
        dequantize = self.parts.producer(node.input[2], node, "DequantizeLinear")
        values, scale, zero_point = (
            self.parts.constant(name, dequantize) for name in dequantize.input
        )
        product = np.float32(self.tensors[source].quantization.scale) * weight.scale
        exact = scale.shape == product.shape and np.array_equal(scale, product)
        if values.dtype != np.int32 or not exact or zero_point.any():
            raise GraphError(
                f"{node.op_type} {node.name!r}: the bias {dequantize.input[0]!r} must be int32 in "
                "steps of input scale times weight scale."
            )
        return np.asarray(values, dtype=np.int32)


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
    left, right = operands.operand(node, 0), operands.operand(node, 1)
    kind = Add if node.op_type == "Add" else Mul
    return kind(node.name, left, right, operands.requantized(node))


def _lookup(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, ("approximate",))
    function = Function(node.op_type.lower())
    if attribute(node, "approximate", b"none") == b"tanh":
        function = Function.GELU_TANH
    return Lookup(node.name, operands.activation(node, 0), operands.requantized(node), function)


def _global_average_pool(operands: Operands, node: NodeProto) -> Operator:
    return GlobalAveragePool(node.name, operands.activation(node, 0), operands.requantized(node))


def _max_pool(operands: Operands, node: NodeProto) -> Operator:
    refuse_other_attributes(node, WINDOW_ATTRIBUTES)
    geometry = window(node, ())
    return MaxPool(node.name, operands.integers(node), operands.tensor(node.output[0]), geometry)


def _flatten(operands: Operands, node: NodeProto) -> Operator:
    if attribute(node, "axis", 1) != 1:
        raise GraphError(f"Flatten {node.name!r} has an axis other than 1; keep the batch apart.")
    return Flatten(node.name, operands.integers(node), operands.tensor(node.output[0]))


def _clamp(operands: Operands, node: NodeProto) -> Operator:
    if len(node.input) != 3:
        raise GraphError(f"Clip {node.name!r} has an open end; write both bounds.")
    low, high = (int(operands.parts.constant(name, node)) - UINT8_SHIFT for name in node.input[1:])
    return Clamp(node.name, operands.integers(node), operands.tensor(node.output[0]), low, high)


def _concat(operands: Operands, node: NodeProto) -> Operator:
    read = tuple(operands.integers(node, index) for index in range(len(node.input)))
    axis = _whole(attribute(node, "axis", 0))
    return Concat(node.name, read, operands.tensor(node.output[0]), axis)


def _slice(operands: Operands, node: NodeProto) -> Operator:
    spans = [operands.parts.constant(name, node) for name in node.input[1:]]
    if len(spans) != 4 or any(span.size != 1 for span in spans):
        raise GraphError(f"Slice {node.name!r} must state start, stop, axis and step of one axis.")
    start, stop, axis, step = (int(span.item()) for span in spans)
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return Slice(node.name, source, output, axis, start, stop, step)


def _gather(operands: Operands, node: NodeProto) -> Operator:
    indices = operands.parts.constant(node.input[1], node)
    if attribute(node, "axis", 0) != 1 or indices.ndim != 1:
        raise GraphError(f"Gather {node.name!r} must take channels (axis 1) by a list of indices.")
    taken = tuple(int(index) for index in indices)
    return Gather(node.name, operands.integers(node), operands.tensor(node.output[0]), taken)


def _repeat(operands: Operands, node: NodeProto) -> Operator:
    ways = [
        attribute(node, name, b"")
        for name in ("mode", "coordinate_transformation_mode", "nearest_mode")
    ]
    scales = operands.parts.constant(node.input[2], node)
    whole = scales.shape == (4,) and np.array_equal(scales, np.rint(scales))
    if ways != [b"nearest", b"asymmetric", b"floor"] or not whole or (scales[:2] != 1).any():
        raise GraphError(f"Resize {node.name!r} does not repeat whole pixels.")
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return Repeat(node.name, source, output, int(scales[2]), int(scales[3]))


def _depth_to_space(operands: Operands, node: NodeProto) -> Operator:
    if attribute(node, "mode", b"DCR") != b"DCR":
        raise GraphError(f"DepthToSpace {node.name!r} has another mode than DCR.")
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return DepthToSpace(node.name, source, output, _whole(attribute(node, "blocksize", 1)))


def _space_to_depth(operands: Operands, node: NodeProto) -> Operator:
    source, output = operands.integers(node), operands.tensor(node.output[0])
    return SpaceToDepth(node.name, source, output, _whole(attribute(node, "blocksize", 1)))


def _whole(value: object) -> int:
    return int(str(value))


READ: Mapping[str, Callable[[Operands, NodeProto], Operator]] = {
    "Add": _binary,
    "Clip": _clamp,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Elu": _lookup,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _lookup,
    "Gemm": _linear,
    "GlobalAveragePool": _global_average_pool,
    "MaxPool": _max_pool,
    "Mul": _binary,
    "Resize": _repeat,
    "Sigmoid": _lookup,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Tanh": _lookup,
}
