"""Collects the nodes and initializers of an integer ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.onnx_carriers import write_carried
from deploykit.emit.onnx_format import (
    SCALE_PARAMETER,
    TENSOR_KEY,
    ZERO_POINT_PARAMETER,
)
from deploykit.emit.onnx_names import Names, integer_names
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, Float32Array, Int32Array
from deploykit.spec.carriers import BITS_KEY
from deploykit.spec.operators import IntegerTable, IntegerWeight
from deploykit.spec.quantized import (
    UINT8_SHIFT,
    ActivationTensor,
    Batch,
    ConstantTensor,
    Quantization,
    QuantizedNetwork,
    as_uint8,
)


class OnnxGraph:
    """A graph under construction; every method returns the ONNX name of what it wrote."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.metadata: dict[str, str] = {}
        self._network = network
        self._integer = integer_names(network)
        named = (port.name for port in (*network.inputs, *network.outputs))
        self._names = Names({*self._integer.values(), *network.tensors, *network.constants, *named})
        self._node_names = Names(operator.name for operator in network.operators)
        self._parameters: dict[Quantization, tuple[str, str]] = {}
        self._constants: dict[str, tuple[str, str]] = {}
        self._stored: set[str] = set()
        self._tables: dict[tuple[str, bytes], str] = {}
        self._converted: set[str] = set()
        self._dequantized_weights: dict[str, tuple[IntegerWeight, str]] = {}
        for tensor, name in self._integer.items():
            if tensor != name:
                self.metadata[TENSOR_KEY + name] = tensor

    @property
    def batch(self) -> Batch:
        """Whether the file takes any batch."""
        return self._network.batch

    def tensor(self, name: str) -> ActivationTensor:
        """The network's tensor, refused where the file could not carry it."""
        tensor = self._network.tensors[name]
        if tensor.quantization.bits != 8:
            raise GraphError(
                f"{name}: activations of {tensor.quantization.bits} bits cannot be written to "
                "ONNX with an integer kernel; plan 8 bits."
            )
        return tensor

    def require_equal(self, source: str, into: str, operator: str) -> None:
        """Refuse two tensors of an operator that differ in scale or zero point."""
        first, second = self._network.operand(source), self.tensor(into)
        if first.quantization != second.quantization:
            raise GraphError(
                f"{operator}: {source} and {into} must share one quantization, but have "
                f"{first.quantization} and {second.quantization}; plan them together."
            )

    def integer(self, tensor: str) -> str:
        """The uint8 tensor itself."""
        return self._integer[tensor]

    def helper(
        self,
        op_type: str,
        inputs: list[str],
        output: str,
        wanted: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """A node that stands for no operator of the network, under a name that is still free."""
        return self.node(op_type, inputs, output, self._node_names.fresh(wanted), attributes)

    def node(
        self,
        op_type: str,
        inputs: list[str],
        output: str,
        name: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """One node with one output."""
        self.outputs_node(op_type, inputs, [output], name, attributes or {})
        return output

    def outputs_node(
        self,
        op_type: str,
        inputs: list[str],
        outputs: list[str],
        name: str,
        attributes: Mapping[str, Any],
    ) -> None:
        """One node with any number of outputs; those that nobody reads have the name ""."""
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))

    def fresh(self, wanted: str) -> str:
        """A name for a tensor inside of an operator."""
        return self._names.fresh(wanted)

    def fresh_node(self, wanted: str) -> str:
        """A name for a node inside of an operator."""
        return self._node_names.fresh(wanted)

    def initializer(self, wanted: str, values: AnyArray) -> str:
        """A constant."""
        name = self._names.fresh(wanted)
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def packed_initializer(
        self, wanted: str, kind: int, shape: tuple[int, ...], content: bytes
    ) -> str:
        """A constant of an element type that is narrower than a byte."""
        name = self._names.fresh(wanted)
        self.initializers.append(
            TensorProto(name=name, data_type=kind, dims=shape, raw_data=content)
        )
        return name

    def shared_initializer(self, wanted: str, values: AnyArray) -> str:
        """A constant that is written once, whoever asks for it."""
        key = (wanted, values.tobytes())
        if key not in self._tables:
            self._tables[key] = self.initializer(wanted, values)
        return self._tables[key]

    def parameters(self, tensor: str) -> tuple[str, str]:
        """Scale and uint8 zero point of an integer tensor.

        Equal ones are written once, under the first tensor's name: a pooled tensor's parameters
        would otherwise stand in its annotation alone, and ORT warns of constants no node reads.
        """
        quantization = self.tensor(tensor).quantization
        if quantization not in self._parameters:
            self._parameters[quantization] = (
                self.initializer(f"{tensor}.scale", np.array(quantization.scale, np.float32)),
                self.initializer(f"{tensor}.zero_point", unsigned_zero_point(quantization)),
            )
        return self._parameters[quantization]

    def dequantize(self, tensor: str, reader: str) -> str:
        """The real values of an integer tensor for one reader.

        Each reader has a DequantizeLinear of its own: runtimes fuse a DequantizeLinear only where
        nobody else reads it.
        """
        if tensor in self._network.constants:
            return self._dequantize_constant(self._network.constants[tensor], reader)
        output = self._names.fresh(f"{tensor}.real.{reader}")
        self._converted.add(tensor)
        inputs = [self.integer(tensor), *self.parameters(tensor)]
        return self.helper("DequantizeLinear", inputs, output, f"{reader}.dequantize.{tensor}")

    def integers(self, tensor: str) -> str:
        """The uint8 integers of an activation or of a constant, which is stored once."""
        if tensor not in self._network.constants:
            return self.integer(tensor)
        return self._store(self._network.constants[tensor])

    def mirrored(self, tensor: str, reader: str) -> str:
        """The negated real values of an integer tensor for one reader.

        z - q = (255 - q) - (255 - z), and 255 - q is q with every bit turned: exact.
        """
        quantization = self.tensor(tensor).quantization
        turned = self._names.fresh(f"{tensor}.mirrored.{reader}")
        wanted = f"{reader}.mirror.{tensor}"
        self.helper("BitwiseNot", [self.integer(tensor)], turned, wanted)
        scale, _ = self.parameters(tensor)
        mirrored = ~unsigned_zero_point(quantization)
        zero_point = self.initializer(f"{turned}.zero_point", mirrored)
        output = self._names.fresh(f"{tensor}.negated.{reader}")
        inputs = [turned, scale, zero_point]
        return self.helper("DequantizeLinear", inputs, output, f"{reader}.dequantize.{turned}")

    def table(self, table: IntegerTable) -> str:
        """A table's rows as uint8; one that several operators read is written once."""
        return self.shared_initializer(table.name, as_uint8(table.values))

    def places(self, tensor: str, reader: str) -> str:
        """An integer tensor as int32, 0 to 255, by which a Gather takes from a table."""
        output = self._names.fresh(f"{tensor}.places.{reader}")
        wanted = f"{reader}.places.{tensor}"
        return self.helper(
            "Cast", [self.integer(tensor)], output, wanted, {"to": TensorProto.INT32}
        )

    def _dequantize_constant(self, constant: ConstantTensor, reader: str) -> str:
        """The same of a constant, which is stored once, under its own name."""
        name = self._store(constant)
        if name not in self._constants:
            quantization = constant.quantization
            self._constants[name] = (
                self.initializer(f"{name}.scale", np.array(quantization.scale, np.float32)),
                self.initializer(f"{name}.zero_point", unsigned_zero_point(quantization)),
            )
        output = self._names.fresh(f"{name}.real.{reader}")
        inputs = [name, *self._constants[name]]
        return self.helper(
            "DequantizeLinear", inputs, output, f"{reader}.dequantize.{constant.name}"
        )

    def _store(self, constant: ConstantTensor) -> str:
        """Its uint8 integers, under its own name."""
        if constant.name not in self._stored:
            values = numpy_helper.from_array(as_uint8(constant.values), constant.name)
            self.initializers.append(values)
            self._stored.add(constant.name)
        return constant.name

    def quantize(self, real: str, tensor: str) -> str:
        """The integer tensor, from its real values."""
        self._converted.add(tensor)
        inputs = [real, *self.parameters(tensor)]
        return self.helper("QuantizeLinear", inputs, self.integer(tensor), f"{tensor}.quantize")

    def real(self, tensor: str) -> str:
        """A name for the real values that become `tensor` at its QuantizeLinear."""
        return self._names.fresh(f"{tensor}.real")

    def weight(self, weight: IntegerWeight) -> str:
        """[O, ...] behind a DequantizeLinear along axis 0; a shared weight is written once."""
        if weight.name in self._dequantized_weights:
            known, output = self._dequantized_weights[weight.name]
            if known is weight or _same(known, weight):
                return output
        stored, values = write_carried(weight, self)
        if weight.bits != 8:
            self.metadata[BITS_KEY + stored] = str(weight.bits)
        scale = self.initializer(f"{weight.name}.scale", weight.scale.astype(np.float32))
        zero = self.initializer(f"{weight.name}.zero_point", np.zeros(len(weight.scale), np.int8))
        output = self._names.fresh(f"{weight.name}.real")
        name = f"{stored}.dequantize"
        self.helper("DequantizeLinear", [values, scale, zero], output, name, {"axis": 0})
        self._dequantized_weights[weight.name] = (weight, output)
        return output

    def bias(self, operator: str, bias: Int32Array, scale: Float32Array) -> str:
        """int32 [O] behind a DequantizeLinear of scale sx * sw, which ORT insists on to fuse."""
        values = self.initializer(f"{operator}.bias", bias.astype(np.int32))
        scales = self.initializer(f"{operator}.bias.scale", scale)
        zeros = self.initializer(f"{operator}.bias.zero_point", np.zeros(len(bias), np.int32))
        output = self._names.fresh(f"{operator}.bias.real")
        name = f"{operator}.dequantize.bias"
        inputs = [values, scales, zeros]
        return self.helper("DequantizeLinear", inputs, output, name, {"axis": 0})

    def annotations(self) -> list[onnx.TensorAnnotation]:
        """Scale and zero point of the tensors that no QuantizeLinear or DequantizeLinear touches.

        Without these a file with uint8 ports would not say what its integers mean.
        """
        made = []
        for tensor in self._network.tensors:
            if tensor in self._converted:
                continue
            scale, zero_point = self.parameters(tensor)
            annotation = onnx.TensorAnnotation(tensor_name=self.integer(tensor))
            for key, value in ((SCALE_PARAMETER, scale), (ZERO_POINT_PARAMETER, zero_point)):
                annotation.quant_parameter_tensor_names.add(key=key, value=value)
            made.append(annotation)
        return made


def unsigned_zero_point(quantization: Quantization) -> AnyArray:
    """The zero point of the uint8 form. Quantization(0.1, -128) -> 0"""
    return np.array(quantization.zero_point + UINT8_SHIFT, dtype=np.uint8)


def _same(left: IntegerWeight, right: IntegerWeight) -> bool:
    """Whether two weights of one name are one weight."""
    return np.array_equal(left.values, right.values) and np.array_equal(left.scale, right.scale)
