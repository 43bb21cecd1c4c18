"""What the nodes of an ONNX file in QDQ form read and write, as tensors of the integer network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from deploykit.emit.onnx_carriers import read_carried
from deploykit.emit.onnx_parts import Parts, attribute
from deploykit.emit.packing import check_width
from deploykit.errors import GraphError
from deploykit.spec.arrays import Int32Array
from deploykit.spec.carriers import Carriers
from deploykit.spec.operators import IntegerWeight
from deploykit.spec.quantized import ActivationTensor, ConstantTensor, Quantization, as_int8


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

    def mirrored(self, node: NodeProto, index: int) -> str | None:
        """The integer tensor whose negated real values a node reads; None where it reads others.

        A BitwiseNot makes 255 - q of q; the zero point has to be 255 less the tensor's.
        """
        dequantize = self.parts.producer(node.input[index], node, "DequantizeLinear")
        if self.parts.made_by(dequantize.input[0]) != "BitwiseNot":
            return None
        turned = self.parts.producer(dequantize.input[0], dequantize, "BitwiseNot")
        tensor = self.tensor(turned.input[0])
        found = self.parts.quantization(dequantize)
        known = self.tensors[tensor].quantization
        if found != Quantization(known.scale, -1 - known.zero_point):
            raise GraphError(
                f"{node.op_type} {node.name!r}: the mirror image of {tensor!r} has {found}; its "
                f"scale must be {known.scale} and its zero point {-1 - known.zero_point}."
            )
        return tensor

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

    def compared(self, node: NodeProto, index: int, output: str) -> str:
        """The integer tensor that a node reads as it is, or a constant of its output's meaning."""
        name = str(node.input[index])
        if not self.parts.is_constant(name):
            return self.integers(node, index)
        values = self.parts.constant(name, node)
        if values.dtype != np.uint8:
            raise GraphError(
                f"{node.op_type} {node.name!r}: the constant {name!r} is {values.dtype}, not uint8."
            )
        quantization = self.tensors[output].quantization
        found = ConstantTensor(name, as_int8(values), quantization)
        if self.constants.setdefault(name, found).quantization != quantization:
            raise GraphError(f"The constant {name!r} is compared in two quantizations.")
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
        """The weight at a node's second input, symmetric per output channel."""
        dequantize = self.parts.producer(node.input[1], node, "DequantizeLinear")
        name, values, carrier = read_carried(self.parts, dequantize)
        scale, zero_point = (self.parts.constant(one, dequantize) for one in dequantize.input[1:])
        per_channel = scale.shape == values.shape[:1] and attribute(dequantize, "axis", 1) == 0
        if not per_channel or zero_point.any():
            raise GraphError(
                f"{node.op_type} {node.name!r}: the weight {name!r} must be symmetric, with one "
                "scale per output channel along axis 0."
            )
        bits = int(self._bits.get(name, "8"))
        check_width(f"{node.op_type} {node.name!r}", name, values, bits)
        return IntegerWeight(name, values, scale, bits, Carriers(onnx=carrier))

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
