"""Tensors put one behind the other along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.joining import Join
from deploykit.graph.channels.labels import Atoms, Labels, full_axis, other_axes_are_one
from deploykit.graph.channels.operands import cut_operand, reduced
from deploykit.graph.channels.rule import (
    Arrangement,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
    nothing,
)
from deploykit.graph.edit import (
    attribute_int,
    floats,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Concat(Plain):
    """Tensors, and constants of the node's own, one behind the other along the cut axis."""

    node: ir.Node
    axis: int
    sizes: tuple[int, ...]
    parts: tuple[int | None, ...]
    """By operand, which activation it is; None for a constant."""

    @staticmethod
    def of(node: ir.Node) -> Concat | None:
        """None unless every size is known."""
        shapes = [static_shape(value) for value in node.inputs]
        known = [shape for shape in shapes if shape is not None]
        if len(known) != len(shapes):
            return None
        axis = attribute_int(node, "axis", 0) % len(known[0])
        parts: list[int | None] = []
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                if not own_weight(value):
                    return None
                parts.append(None)
            else:
                parts.append(sum(part is not None for part in parts))
        return Concat(node, axis, tuple(shape[axis] for shape in known), tuple(parts))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """One behind the other; a constant has atoms of its own, one per entry.

        None for sequences [N, T, D] that nothing is cut from: what joins them is a token.
        """
        if any(not other_axes_are_one(labels, self.axis) for labels in inputs):
            return None
        if all(labels.size == 1 and labels.ndim == 3 for labels in inputs):
            return None
        shape = [1] * inputs[0].ndim
        pieces = []
        for size, part in zip(self.sizes, self.parts, strict=True):
            if part is None:
                shape[self.axis] = size
                pieces.append(atoms.fresh(shape))
            else:
                pieces.append(full_axis(inputs[part], self.axis, size))
        return [np.concatenate(pieces, axis=self.axis)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """One behind the other."""
        pieces = []
        for value, size, part in zip(self.node.inputs, self.sizes, self.parts, strict=True):
            shape = [1] * inputs[0].ndim
            shape[self.axis] = size
            given = floats(value) if part is None else inputs[part]
            assert given is not None
            pieces.append(reduced(np.array(given), shape))
        return [np.concatenate(pieces, axis=self.axis)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Constants are cut; operands of which nothing stays go."""
        node, target = cutting.node, cutting.outputs[0]
        start, places, operands = 0, [], []
        for value, size, part in zip(node.inputs, self.sizes, self.parts, strict=True):
            assert value is not None
            shape = [1] * target.ndim
            shape[self.axis] = size
            span = np.arange(start, start + size)
            if part is None:
                labels = np.take(target, span, axis=self.axis)
                arranged = arrange(labels, cutting.kept)
                if arranged.size:
                    cut_operand(cutting.affine, value, labels, arranged)
                held = arranged.reshape(-1)
            elif cutting.inputs[part].size == 1 and size > 1:
                held = np.arange(size) if cutting.arranged[part].size else np.arange(0)
            else:
                held = cutting.arranged[part].reshape(-1)
            if len(held):
                places.append(start + held)
                operands.append(value)
            start += size
        whole = [1] * target.ndim
        if not places:
            return [nothing(target)]
        found = np.concatenate(places)
        whole[self.axis] = len(found)
        if len(operands) < len(node.inputs):
            for index, value in enumerate(operands):
                node.replace_input_with(index, value)
            node.resize_inputs(len(operands))
        return [found.reshape(whole)]


@dataclass(frozen=True)
class Stack(Plain):
    """Concat along an axis that is not cut: what is at one channel in all of them is one channel.

    Constant where all hold the same constant.
    """

    node: ir.Node
    joined: Join
    constant_operands: tuple[ir.Value, ...]

    @staticmethod
    def of(node: ir.Node) -> Stack | None:
        """None unless every size is known."""
        shapes = [static_shape(value) for value in activations(node)]
        known = [shape for shape in shapes if shape is not None]
        if len(known) != len(shapes) or not known:
            return None
        axis = attribute_int(node, "axis", 0) % len(known[0])
        fixed = [
            value for value in node.inputs if value is not None and value.const_value is not None
        ]
        if not all(own_weight(value) for value in fixed):
            return None
        narrow = tuple((*shape[:axis], 1, *shape[axis + 1 :]) for shape in known)
        return Stack(node, Join(_if_equal, narrow), tuple(fixed))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The joined labels."""
        axis = attribute_int(self.node, "axis", 0) % inputs[0].ndim
        if any(labels.shape[axis] > 1 for labels in inputs):
            return None
        return self.joined.label(inputs, atoms)

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """The constant that all agree on."""
        (found,) = self.joined.constants(inputs)
        for value in self.constant_operands:
            held = floats(value)
            assert held is not None
            found = _if_equal(found, reduced(held, found.shape))
        return [found]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Constants are cut."""
        (arranged,) = self.joined.cut(cutting)
        for value in cutting.node.inputs:
            if value is not None and value.const_value is not None and arranged.size:
                cut_operand(cutting.affine, value, cutting.outputs[0], arranged)
        return [arranged]


def _if_equal(*values: Float64Array) -> Float64Array:
    first = values[0]
    for value in values[1:]:
        first = np.where(first == value, first, np.nan)
    return first
