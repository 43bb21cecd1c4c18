"""Looks up the pieces of an ONNX graph: constants, producers, readers, quantization parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from deploykit.emit.onnx_format import (
    BATCH_SYMBOL,
    SCALE_PARAMETER,
    ZERO_POINT_PARAMETER,
    rows_of,
)
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Window
from deploykit.spec.quantized import UINT8_SHIFT, Batch, Quantization


class Parts:
    """One graph, indexed. Every lookup that fails is a GraphError that names the node."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._producers: dict[str, NodeProto] = {
            output: node for node in graph.node for output in node.output
        }
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        public = (*graph.input, *graph.output)
        self._outputs = {value.name for value in graph.output}
        self._values = {value.name: value.type.tensor_type for value in graph.value_info}
        self._values.update((value.name, value.type.tensor_type) for value in public)
        first = [value.type.tensor_type.shape.dim[:1] for value in graph.input]
        symbolic = any(dim.dim_param == BATCH_SYMBOL for dims in first for dim in dims)
        self.batch = Batch.DYNAMIC if symbolic else Batch.FIXED

    def constant(self, name: str, reader: NodeProto) -> AnyArray:
        """Values of an initializer."""
        if name not in self._constants:
            raise GraphError(
                f"{reader.op_type} {reader.name!r} reads {name!r}, which must be an initializer; "
                "only files that write_onnx wrote can be read."
            )
        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def constant_type(self, name: str) -> int:
        """onnx.TensorProto.DataType of an initializer."""
        return int(self._constants[name].data_type)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer."""
        return name in self._constants

    def is_output(self, name: str) -> bool:
        """Whether the caller of the file gets a tensor."""
        return name in self._outputs

    def made_by(self, name: str) -> str | None:
        """Operator that computes a tensor, None for an input or constant."""
        return self._producers[name].op_type if name in self._producers else None

    def maker(self, name: str) -> NodeProto | None:
        """The node that computes a tensor, None for an input or constant."""
        return self._producers.get(name)

    def producer(self, name: str, reader: NodeProto, op_type: str) -> NodeProto:
        """The node behind a tensor, which has to be an `op_type`."""
        node = self._producers.get(name)
        if node is None or node.op_type != op_type:
            found = "a graph input or constant" if node is None else f"a {node.op_type}"
            raise GraphError(
                f"{reader.op_type} {reader.name!r} reads {name!r} from {found}, where the integer "
                f"form has a {op_type}; quantize every tensor of the graph."
            )
        return node

    def only_reader(self, node: NodeProto, op_type: str) -> NodeProto:
        """The one reader of a node's output, which has to be an `op_type`."""
        output = str(node.output[0])
        readers: list[NodeProto] = self._readers.get(output, [])
        if len(readers) != 1 or readers[0].op_type != op_type or output in self._outputs:
            found = ", ".join(reader.op_type for reader in readers) or "the caller of the file"
            raise GraphError(
                f"The real values of {node.op_type} {node.name!r} go to {found}, where the "
                f"integer form has exactly one {op_type}; quantize every tensor of the graph."
            )
        (reader,) = readers
        return reader

    def element_type(self, name: str) -> int:
        """onnx.TensorProto.DataType of a tensor."""
        return int(self._values[name].elem_type) if name in self._values else 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor for one sample, where the batch is dynamic.

        Raises GraphError where anything but the first axis is open, or not in every tensor.
        """
        dims = list(self._values[name].shape.dim) if name in self._values else []
        batch: tuple[int, ...] = ()
        rows = rows_of(dims[0].dim_param) if dims and self.batch is Batch.DYNAMIC else None
        if rows is not None:
            batch, dims = (rows,), dims[1:]
        if not (dims or batch) or not all(dim.HasField("dim_value") for dim in dims):
            raise GraphError(f"The shape of {name!r} is not static; write every shape in the file.")
        if not batch and self.batch is Batch.DYNAMIC:
            raise GraphError(f"{name!r} has a fixed batch in a file whose batch is dynamic.")
        return (*batch, *(int(dim.dim_value) for dim in dims))

    def quantization(self, node: NodeProto) -> Quantization:
        """Per-tensor scale and zero point of a QuantizeLinear or DequantizeLinear.

        As the network counts: a uint8 zero point is shifted, an int8 one is not.
        """
        if len(node.input) != 3:
            raise GraphError(
                f"{node.op_type} {node.name!r} has no zero point; write all three inputs."
            )
        return self._affine(node.input[1], node.input[2], node)

    def annotated(self) -> dict[str, Quantization]:
        """Quantization by tensor, of the graph's own annotations."""
        found = {}
        for annotation in self.graph.quantization_annotation:
            name = annotation.tensor_name
            entries = {pair.key: pair.value for pair in annotation.quant_parameter_tensor_names}
            if {SCALE_PARAMETER, ZERO_POINT_PARAMETER} <= set(entries):
                reader = NodeProto(op_type="The annotation of", name=name)
                found[name] = self._affine(
                    entries[SCALE_PARAMETER], entries[ZERO_POINT_PARAMETER], reader
                )
        return found

    def _affine(self, scale_name: str, zero_point_name: str, reader: NodeProto) -> Quantization:
        scale = self.constant(scale_name, reader)
        zero_point = self.constant(zero_point_name, reader)
        legal = scale.dtype == np.float32 and zero_point.dtype in (np.uint8, np.int8)
        if not legal or scale.size != 1 or zero_point.size != 1:
            raise GraphError(
                f"{reader.op_type} {reader.name!r}: an activation needs one float32 scale and one "
                f"8-bit zero point, but has {scale.dtype}{list(scale.shape)} and "
                f"{zero_point.dtype}{list(zero_point.shape)}."
            )
        shift = UINT8_SHIFT if zero_point.dtype == np.uint8 else 0
        return Quantization(float(scale.reshape(())), int(zero_point.reshape(())) - shift)


def attribute(node: NodeProto, name: str, default: object) -> object:
    """An attribute's value, or what the ONNX specification says holds without it."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def refuse_other_attributes(node: NodeProto, known: Sequence[str]) -> None:
    """A GraphError where a node has an attribute that the integer operator has no field for."""
    for entry in node.attribute:
        if entry.name not in known:
            raise GraphError(
                f"{node.op_type} {node.name!r} has the attribute {entry.name!r}, for which the "
                f"integer form has no place; it knows {', '.join(known) or 'none'}."
            )


def window(node: NodeProto, kernel: tuple[int, ...]) -> Window:
    """The sliding window of a Conv or MaxPool. kernel: where the attribute is missing."""
    rows, columns = _integers(node, "kernel_shape", kernel)
    stride_h, stride_w = _integers(node, "strides", (1, 1))
    top, left, bottom, right = _integers(node, "pads", (0, 0, 0, 0))
    dilation_h, dilation_w = _integers(node, "dilations", (1, 1))
    return Window(
        (rows, columns), (stride_h, stride_w), (top, left, bottom, right), (dilation_h, dilation_w)
    )


def _integers(node: NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = attribute(node, name, default)
    values = tuple(int(entry) for entry in value) if isinstance(value, (list, tuple)) else ()
    if len(values) != (4 if name == "pads" else 2):
        raise GraphError(
            f"{node.op_type} {node.name!r}: {name} is {value}; only windows over height and width "
            "have an integer form."
        )
    return values
