"""Operators that pass channels on, each output channel from the same channel of every input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.rule import Constants, Kept, Link, activations, channel_count
from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    attribute_ints,
    floats,
    padded,
)
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.graph.passes.batchnorm import batchnorm_as_affine, is_inference
from deploykit.graph.passes.scales import channel_vector
from deploykit.spec.arrays import BoolArray, Float64Array
from deploykit.spec.network import static_shape

Scalar = Callable[[ir.Node, Float64Array], Float64Array]


class Passing:
    """What every operator here has in common: it sums nothing over channels."""

    def links(self, node: ir.Node) -> Sequence[Link]:
        """Channel by channel, of every input."""
        count = channel_count(node.outputs[0])
        assert count is not None
        every = np.arange(count)
        return [Link(index, every, every) for index in range(len(activations(node)))]

    def reads(self, node: ir.Node, live: BoolArray) -> BoolArray | None:
        """Nothing beyond its links."""
        return None

    def absorbs(self, node: ir.Node) -> bool:
        """The link keeps the channel, so nothing has to be absorbed."""
        return False

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """It has no parameter per channel."""


@dataclass(frozen=True)
class Elementwise(Passing):
    """y = f(x) at every position: a constant c becomes f(c)."""

    function: Scalar

    def supports(self, node: ir.Node) -> bool:
        """One activation, parameters constant, channels kept."""
        source = activations(node)
        return len(source) == 1 and channel_count(source[0]) == channel_count(node.outputs[0])

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """f(c)."""
        return np.asarray(self.function(node, inputs[0]), dtype=np.float64)


@dataclass(frozen=True)
class Pool(Elementwise):
    """Max and average over a window: a constant stays itself.

    Not for an average that counts padded zeros: at the border it is smaller. Nor for a window with
    holes that may lie wholly in the padding.
    """

    def supports(self, node: ir.Node) -> bool:
        """See the class."""
        reaches_out = padded(node) or attribute_int(node, "ceil_mode", 0) == 1
        counts_padding = attribute_int(node, "count_include_pad", 0) == 1
        has_holes = any(step != 1 for step in attribute_ints(node, "dilations", ()))
        return super().supports(node) and not (reaches_out and (counts_padding or has_holes))


@dataclass(frozen=True)
class Join(Passing):
    """Add, Sub, Mul of two activations of equal shape."""

    function: Callable[[Float64Array, Float64Array], Float64Array]

    def supports(self, node: ir.Node) -> bool:
        """Two activations of equal shape (broadcasting joins channels in ways not modelled)."""
        sources = activations(node)
        shapes = {static_shape(source) for source in sources}
        return len(sources) == 2 and len(shapes) == 1 and None not in shapes

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """NaN is contagious, so both have to be constant, or one the zero of a product."""
        return self.function(inputs[0], inputs[1])


@dataclass(frozen=True)
class ChannelAffine(Elementwise):
    """y = s_c * x + t_c with constant parameters: batch norm, Mul, Div, Add, Sub by a constant."""

    def supports(self, node: ir.Node) -> bool:
        """Whether the constant operand is one number per channel."""
        if not super().supports(node):
            return False
        if node.op_type == "BatchNormalization":
            return is_inference(node) and all(own_weight(value) for value in node.inputs[1:5])
        shape = static_shape(activations(node)[0])
        operand = _operand(node)
        value = floats(operand)
        if shape is None or value is None or operand is None or not own_weight(operand):
            return False
        return channel_vector(value, shape) is not None

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """Index every per-channel parameter."""
        operands = node.inputs[1:5] if node.op_type == "BatchNormalization" else [_operand(node)]
        for operand in operands:
            value = floats(operand)
            assert operand is not None and value is not None
            axis = _channel_axis(node, value)
            if axis is not None:
                affine.take(str(operand.name), kept.output, axis)


@dataclass(frozen=True)
class Depthwise(Passing):
    """Conv with one kernel per channel: weight [C, 1, kh, kw], group = C.

    Constant where the kernel is zero (then b_c), where the input is a constant zero (b_c), or,
    without padding, where the input is constant: b_c + c * sum_taps W_c.
    """

    def supports(self, node: ir.Node) -> bool:
        """Own constant parameters and as many groups as input and output channels."""
        if len(node.inputs) < 3 or not own_weight(node.inputs[1]) or not own_weight(node.inputs[2]):
            return False
        counts = {channel_count(activations(node)[0]), channel_count(node.outputs[0])}
        return counts == {attribute_int(node, "group", 1)}

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """See the class."""
        weight, bias = floats(node.inputs[1]), floats(node.inputs[2])
        assert weight is not None and bias is not None
        taps = weight.reshape(weight.shape[0], -1)
        (given,) = inputs
        through = np.where((given != 0) & padded(node), np.nan, given)
        dead_kernel = ~(taps != 0).any(axis=1)
        return np.where(dead_kernel, bias, bias + through * taps.sum(axis=1))

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """Index weight and bias, set group to the new count."""
        for operand in node.inputs[1:3]:
            assert operand is not None
            affine.take(str(operand.name), kept.output, 0)
        node.attributes["group"] = ir.AttrInt64("group", len(kept.output))


@dataclass(frozen=True)
class FlattenChannels(Elementwise):
    """[N, C, H, W] -> [N, C*H*W]: channel c becomes features c*H*W .. (c+1)*H*W - 1."""

    def supports(self, node: ir.Node) -> bool:
        """axis = 1 and a static shape."""
        shape = static_shape(activations(node)[0])
        return shape is not None and len(shape) >= 2 and attribute_int(node, "axis", 1) == 1

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """Each constant, H*W times."""
        return np.repeat(inputs[0], _repeat(node))

    def links(self, node: ir.Node) -> Sequence[Link]:
        """Every feature to its channel."""
        count = channel_count(activations(node)[0])
        assert count is not None
        repeat = _repeat(node)
        return [Link(0, np.repeat(np.arange(count), repeat), np.arange(count * repeat))]


def _repeat(node: ir.Node) -> int:
    shape = static_shape(activations(node)[0])
    assert shape is not None
    return int(np.prod(shape[2:], dtype=np.int64))


def _operand(node: ir.Node) -> ir.Value | None:
    """The constant side of a binary operator."""
    for value in node.inputs:
        if value is not None and value.const_value is not None:
            return value
    return None


def _channel_axis(node: ir.Node, value: Float64Array) -> int | None:
    """Axis of a parameter that runs along the channels; None for one number for all."""
    if value.size == 1:
        return None
    if node.op_type == "BatchNormalization":
        return 0
    shape = static_shape(activations(node)[0])
    assert shape is not None
    return value.ndim - (len(shape) - 1)


def clip(node: ir.Node, x: Float64Array) -> Float64Array:
    """Clip with bounds from inputs (opset 11) or attributes (opset 6)."""
    low = floats(node.inputs[1]) if len(node.inputs) > 1 else None
    high = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    lowest = attribute_float(node, "min", -np.inf) if low is None else float(low)
    highest = attribute_float(node, "max", np.inf) if high is None else float(high)
    return np.clip(x, lowest, highest)


def affine_of_constant(node: ir.Node, x: Float64Array) -> Float64Array:
    """s_c * x + t_c of a ChannelAffine node."""
    if node.op_type == "BatchNormalization":
        scale, offset = batchnorm_as_affine(node)
        return np.where(scale == 0, offset, scale * x + offset)
    shape, value = static_shape(activations(node)[0]), floats(_operand(node))
    assert shape is not None and value is not None
    vector = channel_vector(value, shape)
    assert vector is not None
    constant_first = node.inputs[0] is _operand(node)
    match node.op_type:
        case "Mul":
            return np.where(vector == 0, 0.0, x * vector)
        case "Add":
            return x + vector
        case "Sub":
            return vector - x if constant_first else x - vector
        case _:
            with np.errstate(divide="ignore", invalid="ignore"):
                return vector / x if constant_first else x / vector
