"""Operators that treat every element alike: activations, and arithmetic with a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.channels.operands import at_positions, combine, cut_operand
from deploykit.graph.channels.rule import Arrangement, Constants, Cutting, Plain, activations
from deploykit.graph.edit import attribute_float, floats
from deploykit.graph.passes.affine import own_weight
from deploykit.graph.passes.batchnorm import batchnorm_as_affine, is_inference
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import static_shape

Function = Callable[..., Float64Array]


@dataclass(frozen=True)
class Unary(Plain):
    """y = f(x) at every element: a constant c becomes f(c)."""

    function: Function

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's."""
        return [inputs[0]]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """f(c)."""
        return [combine(self.function, inputs[0].shape, inputs[0])]

    def at_positions(self, inputs: Sequence[Constants]) -> Float64Array:
        """f at every position."""
        return at_positions(self.function, inputs[0].ndim, inputs[0])

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """No parameter per channel."""
        return cutting.arranged[:1]


def unary(function: Callable[[ir.Node, Float64Array], Float64Array]) -> Callable[..., Unary | None]:
    """The row of an activation; its parameters are attributes or single constants."""

    def bind(node: ir.Node) -> Unary | None:
        if len(activations(node)) != 1 or activations(node)[0] is not node.inputs[0]:
            return None
        return Unary(lambda x: function(node, x))

    return bind


@dataclass(frozen=True)
class WithConstant(Plain):
    """y = f(x, k) or f(k, x) where k is a constant that broadcasts against x, or x against it."""

    function: Function
    operand: ir.Value
    first: bool
    rank: int

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's; an axis that the operand lengthens is not a cut one."""
        value = floats(self.operand)
        if value is None or value.ndim > self.rank:
            return None
        wide = np.array((1,) * (self.rank - value.ndim) + value.shape)
        lengthened = (wide > 1) & (np.array(inputs[0].shape) > 1)
        fits = wide[lengthened] == np.array(inputs[0].shape)[lengthened]
        return [inputs[0]] if fits.all() else None

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """f of both, where that is one number at every position."""
        return [combine(self.function, inputs[0].shape, *self._pair(inputs[0]))]

    def at_positions(self, inputs: Sequence[Constants]) -> Float64Array:
        """f of both at every position."""
        return at_positions(self.function, inputs[0].ndim, *self._pair(inputs[0]))

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Index the operand along the axes that are cut."""
        (arranged,) = cutting.arranged
        for value in cutting.node.inputs:
            if value is not None and value.const_value is not None:
                cut_operand(cutting.affine, value, cutting.inputs[0], arranged)
        return [arranged]

    def _pair(self, given: Constants) -> tuple[Float64Array, Float64Array]:
        value = floats(self.operand)
        assert value is not None
        return (value, given) if self.first else (given, value)


def with_constant(function: Function) -> Callable[[ir.Node], WithConstant | None]:
    """The row of a binary operator with one constant operand of its own."""

    def bind(node: ir.Node) -> WithConstant | None:
        source = activations(node)
        if len(node.inputs) != 2 or len(source) != 1:
            return None
        first = node.inputs[0] is not source[0]
        operand = node.inputs[0 if first else 1]
        shape = static_shape(source[0])
        if operand is None or shape is None or not own_weight(operand):
            return None
        return WithConstant(function, operand, first, len(shape))

    return bind


@dataclass(frozen=True)
class PerChannel(Plain):
    """y_c = s_c * x_c + t_c with parameters [C] along axis 1: batch normalization."""

    scale: Float64Array
    offset: Float64Array

    @staticmethod
    def of(node: ir.Node) -> PerChannel | None:
        """Inference mode, with parameters of its own."""
        if not is_inference(node) or not all(own_weight(value) for value in node.inputs[1:5]):
            return None
        return PerChannel(*batchnorm_as_affine(node))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, where it is cut along the channels alone."""
        return [inputs[0]] if inputs[0].size == inputs[0].shape[1] else None

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """A scale of zero leaves the offset, whatever comes in."""
        column = (1, -1, *(1,) * (inputs[0].ndim - 2))
        scale, offset = self.scale.reshape(column), self.offset.reshape(column)
        return [
            combine(
                lambda x: np.where(scale == 0, offset, scale * x + offset),
                inputs[0].shape,
                inputs[0],
            )
        ]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Index every parameter."""
        (arranged,) = cutting.arranged
        if cutting.inputs[0].size > 1:
            for operand in cutting.node.inputs[1:5]:
                cutting.affine.take(str(operand.name), arranged.reshape(-1), 0)  # type: ignore[union-attr]
        return [arranged]


def multiply(*values: Float64Array) -> Float64Array:
    """Zero times anything is zero."""
    product = values[0]
    for value in values[1:]:
        product = np.where((product == 0) | (value == 0), 0.0, product * value)
    return product


def clip(node: ir.Node, x: Float64Array) -> Float64Array:
    """Clip with bounds from inputs (opset 11) or attributes (opset 6)."""
    low = floats(node.inputs[1]) if len(node.inputs) > 1 else None
    high = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    lowest = attribute_float(node, "min", -np.inf) if low is None else float(low.reshape(()))
    highest = attribute_float(node, "max", np.inf) if high is None else float(high.reshape(()))
    return np.clip(x, lowest, highest)
