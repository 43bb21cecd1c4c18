"""The float file under construction: where each tensor of the network is, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_order import (
    Order,
    channels_last,
    natural,
    permutation,
    same_elements,
    stored,
)
from deploykit.emit.tflite_graph import Activation, Options, TfliteGraph
from deploykit.emit.tflite_lowering import reshape
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray, Float32Array

LONGEST_TRANSPOSE = 6
"""Highest rank that TFLite's TRANSPOSE takes."""


@dataclass(frozen=True)
class Place:
    """A tensor of the network in the file. shape: the network's; order: see tflite_float_order.

    unflattened: (C, H, W) where the axis 1 of [N, C*H*W] keeps its elements as H, W, C.
    """

    index: int
    shape: tuple[int, ...]
    order: Order
    unflattened: tuple[int, int, int] | None = None


@dataclass
class FloatSite:
    """What lowering an operator needs, and what it adds to.

    opset: of the default domain. absorbed: nodes that others take in. gelus: the last nodes of
    Gelus that are spelled out, each with the value that they are of. depth_major: values whose
    channels a producer wrote in DEPTH_TO_SPACE's order instead of the network's.
    """

    opset: int
    graph: TfliteGraph = field(default_factory=TfliteGraph)
    places: dict[str, Place] = field(default_factory=dict)
    absorbed: set[ir.Node] = field(default_factory=set)
    gelus: dict[ir.Node, ir.Value] = field(default_factory=dict)
    depth_major: set[str] = field(default_factory=set)
    joined: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)
    _turned: dict[tuple[int, Order], int] = field(default_factory=dict)
    _reshaped: dict[int, int] = field(default_factory=dict)
    _stored: dict[tuple[str, tuple[int, ...], bytes], int] = field(default_factory=dict)

    def define(self, value: ir.Value, order: Order) -> int:
        """Index of the new tensor of a value."""
        shape, name = read.value_shape(value), str(value.name)
        element = np.bool_ if value.dtype == ir.DataType.BOOL else np.float32
        index = self.graph.activation(name, stored(shape, order), None, element)
        self.places[name] = Place(index, shape, order)
        return index

    def put(self, value: ir.Value, index: int, order: Order) -> None:
        """Say that an existing tensor holds a value, whose stated shape has to be the tensor's."""
        shape, found = read.value_shape(value), self.graph.tensors[index].shape
        if len(shape) != len(order) or stored(shape, order) != found:
            raise GraphError(
                f"Tensor {value.name!r} is stated to have the shape {list(shape)}, and its "
                f"operator gives {list(found)} in the file; infer the network's shapes again."
            )
        self.places[str(value.name)] = Place(index, shape, order)

    def place(self, node: ir.Node, position: int = 0) -> Place:
        """Where an activation that a node reads is."""
        value = node.inputs[position] if position < len(node.inputs) else None
        name = None if value is None else value.name
        if name is None or name not in self.places:
            raise read.refuse(
                node,
                f"its input {position} ({name!r}) is no activation",
                "only weights, bounds and terms may be constants, and nodes have to be sorted",
            )
        return self.places[name]

    def source(self, node: ir.Node, order: Order, position: int = 0) -> int:
        """Index of an activation that a node reads, in the order that it needs."""
        return self.in_order(self.place(node, position), order)

    def in_order(self, place: Place, order: Order) -> int:
        """Index of a tensor in another order: itself, a RESHAPE, or a TRANSPOSE."""
        if place.order == order:
            return place.index
        shape = stored(place.shape, order)
        if same_elements(place.shape, place.order, order):
            return self.reshaped(place.index, shape)
        axes = permutation(place.order, order)
        if (place.index, axes) not in self._turned:
            name = f"{self.graph.tensors[place.index].name}/transposed"
            result = self.graph.like(place.index, name, shape)
            self._transpose(place.index, result, axes)
            self._turned[place.index, axes] = result
            back = tuple(axes.index(axis) for axis in range(len(axes)))
            self._turned[result, back] = place.index
        return self._turned[place.index, axes]

    def operand(self, node: ir.Node, position: int, order: Order) -> int:
        """Index of an activation or constant that broadcasts to the rank of `order`.

        A constant is written without its leading axes of length 1: [C], where it is per channel.
        """
        rank = len(order)
        values = read.term(node, position)
        if values is not None:
            return self.constant(f"{read.label(node)}/{position}", values, order)
        place = self.place(node, position)
        if rank == len(place.shape):
            return self.in_order(place, order)
        shape = (1,) * (rank - len(place.shape)) + place.shape
        index = self.in_order(place, natural(len(place.shape)))
        wide = Place(self.reshaped(index, shape), shape, natural(rank))
        return self.in_order(wide, order)

    def constant(self, name: str, values: AnyArray, order: Order) -> int:
        """Index of a constant that broadcasts to a tensor kept in `order`, its type as it is."""
        wide = values.reshape((1,) * (len(order) - values.ndim) + values.shape).transpose(order)
        kept = next((axis for axis, size in enumerate(wide.shape) if size > 1), wide.ndim - 1)
        narrow = wide.reshape(wide.shape[max(kept, 0) :])
        return self.graph.constant(name, np.ascontiguousarray(narrow))

    def number(self, name: str, value: float) -> int:
        """Index of a constant [1]."""
        return self.graph.constant(name, np.array([value], dtype=np.float32))

    def shared(self, values: Float32Array, what: str, name: str) -> int:
        """Index of a constant that may have been stored before under another name."""
        key = (what, values.shape, values.tobytes())
        if key not in self._stored:
            self._stored[key] = self.graph.constant(f"{name}/{what}", np.ascontiguousarray(values))
        return self._stored[key]

    def result(self, node: ir.Node, order: Order) -> tuple[int, Activation]:
        """Index of the new tensor that a node fills, and the activation that it fuses to do so."""
        fused = read.fused_activation(node)
        if fused is None:
            return self.define(node.outputs[0], order), Activation.NONE
        follower, activation = fused
        self.absorbed.add(follower)
        return self.define(follower.outputs[0], order), activation

    def step(
        self,
        code: str,
        inputs: tuple[int, ...],
        name: str,
        shape: tuple[int, ...],
        options: Options | None = None,
    ) -> int:
        """Append an operator in the middle of a composition; index of what it gives."""
        result = self.graph.activation(name, shape, None, np.float32)
        self.graph.operator(code, inputs, result, options)
        return result

    def reshaped(self, source: int, shape: tuple[int, ...]) -> int:
        """The same elements in another shape; chains of RESHAPEs become one."""
        source = self._reshaped.get(source, source)
        if self.graph.tensors[source].shape == shape:
            return source
        result = self.graph.like(source, f"{self.graph.tensors[source].name}/view", shape)
        reshape(self.graph, source, result)
        self._reshaped[result] = source
        return result

    def image(self, node: ir.Node) -> int:
        """The input of a window operator as [N, H, W, C]; [N, C, L] gets H = 1."""
        rank = len(read.require_image(node, node.inputs[0]))
        index = self.source(node, channels_last(rank))
        if rank == 4:
            return index
        batch, length, channels = self.graph.tensors[index].shape
        return self.reshaped(index, (batch, 1, length, channels))

    @contextmanager
    def image_result(self, node: ir.Node) -> Iterator[tuple[int, Activation]]:
        """The [N, H, W, C] that the body fills, and the activation that it fuses."""
        rank = len(read.require_image(node, node.outputs[0]))
        index, activation = self.result(node, channels_last(rank))
        if rank == 4:
            yield index, activation
            return
        batch, length, channels = self.graph.tensors[index].shape
        name = f"{self.graph.tensors[index].name}/image"
        image = self.graph.like(index, name, (batch, 1, length, channels))
        yield image, activation
        reshape(self.graph, image, index)
        self._reshaped[index] = image

    def _transpose(self, source: int, result: int, axes: Order) -> None:
        rank = len(axes)
        if rank > LONGEST_TRANSPOSE:
            raise UnsupportedOperatorError(
                f"Tensor {self.graph.tensors[source].name!r} has {rank} axes that change places; "
                f"TFLite transposes up to {LONGEST_TRANSPOSE}: merge axes in the network."
            )
        code = "TRANSPOSE" if rank <= 4 else f"TRANSPOSE/rank{rank}"
        axes_index = self.graph.integers("permutation", np.array(axes))
        self.graph.operator(code, (source, axes_index), result, Options("TransposeOptions"))
