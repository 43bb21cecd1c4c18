"""Convolutions and linears as sums over input channels, all positions of a kernel together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    constant,
    floats,
    padded,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.graph.ranges.span import Span
from deploykit.spec.arrays import AnyArray, BoolArray, Float64Array, IntArray

CHUNK_ELEMENTS = 1 << 23
"""Largest number of float64 weights held at a time."""


@dataclass(frozen=True)
class Block:
    """Weights of some outputs: kernels [G, R, J, taps] of G groups, R outputs that read J inputs.

    outputs, inputs: the G * R and G * J channels that they belong to, in order.
    """

    outputs: slice
    inputs: slice
    kernels: Float64Array

    def absolute(self) -> Float64Array:
        """[G, R, J], sum of |W| over taps."""
        return np.asarray(np.abs(self.kernels).sum(axis=3))


@dataclass(frozen=True)
class Layer:
    """y[o] = sum over i and taps of W[o, i, tap] * x[i] + b[o], of one Conv, Gemm or MatMul.

    axis: of the tensors it reads and writes, along which their channels run; None: the last.
    outside: whether a kernel may reach beyond the image, where x is 0, or leave taps out.
    """

    node: ir.Node
    inputs: int
    outputs: int
    groups: int
    axis: int | None
    outside: bool

    @property
    def depthwise(self) -> bool:
        """Whether an output channel reads a single input channel: o reads o // multiplier."""
        return self.groups > 1 and self.inputs == self.groups

    @property
    def weight(self) -> ir.Value:
        """The initializer W."""
        value = self.node.inputs[1]
        assert value is not None
        return value

    @property
    def bias(self) -> ir.Value | None:
        """The initializer b, where there is one."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @cached_property
    def offset(self) -> Float64Array:
        """b [O], zeros where there is none."""
        held = floats(self.bias)
        return np.zeros(self.outputs) if held is None else held.reshape(-1)

    @property
    def free(self) -> bool:
        """Whether the weight and bias belong to this node alone, so that they may change."""
        return own_weight(self.weight) and (self.bias is None or own_weight(self.bias))

    def blocks(self) -> Iterator[Block]:
        """The weights a part at a time: some rows of the only group, or some groups whole."""
        kernels = self._goit()
        rows = kernels.shape[1]
        size = kernels.shape[2] * kernels.shape[3]
        if self.groups == 1:
            step = max(1, CHUNK_ELEMENTS // max(1, size))
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                held = kernels[:, part].astype(np.float64)
                yield Block(part, slice(0, self.inputs), held)
            return
        step = max(1, CHUNK_ELEMENTS // max(1, rows * size))
        for start in range(0, self.groups, step):
            stop = min(start + step, self.groups)
            outputs = slice(start * rows, stop * rows)
            inputs = slice(start * kernels.shape[2], stop * kernels.shape[2])
            yield Block(outputs, inputs, kernels[start:stop].astype(np.float64))

    def span(self, source: Span) -> Span:
        """Range of the sums where every input takes any value of its range.

        Errors: |y' - y| <= sum |W| * |x' - x|.
        """
        reached = source.including(0.0) if self.outside else source
        low, high = self.offset.copy(), self.offset.copy()
        error = np.empty((self.outputs, source.error.shape[1]))
        for block in self.blocks():
            up = np.maximum(block.kernels, 0.0).sum(axis=3)
            down = np.maximum(-block.kernels, 0.0).sum(axis=3)
            given, made = block.inputs, block.outputs
            low[made] += _sum(up, reached.low[given]) - _sum(down, reached.high[given])
            high[made] += _sum(up, reached.high[given]) - _sum(down, reached.low[given])
            weight = up + down
            for kind, errors in enumerate(source.error[given].T):
                error[made, kind] = _sum(weight, errors)
        return Span(low, high, error)

    def absolute_sum(self, magnitude: Float64Array) -> Float64Array:
        """[O], sum |W| * magnitude [I] + |b|."""
        total = np.abs(self.offset)
        for block in self.blocks():
            total[block.outputs] += _sum(block.absolute(), magnitude[block.inputs])
        return total

    def mask(self, outputs: IntArray, inputs: IntArray) -> BoolArray:
        """The weights, in the weight's own layout, of some outputs and of some inputs."""
        chosen_outputs = np.zeros(self.outputs, dtype=np.bool_)
        chosen_outputs[outputs] = True
        chosen_inputs = np.zeros(self.inputs, dtype=np.bool_)
        chosen_inputs[inputs] = True
        array = constant(self.weight)
        assert array is not None
        wide = (slice(None), slice(None), *(None,) * (array.ndim - 2))
        match self.node.op_type:
            case "Conv":
                by_group = chosen_inputs.reshape(self.groups, -1)
                columns = np.repeat(by_group, self.outputs // self.groups, axis=0)
                chosen = chosen_outputs[:, None] | columns
            case "ConvTranspose":
                by_group = chosen_outputs.reshape(self.groups, -1)
                rows = np.repeat(by_group, self.inputs // self.groups, axis=0)
                chosen = chosen_inputs[:, None] | rows
            case "Gemm" if attribute_int(self.node, "transB", 0):
                chosen = chosen_outputs[:, None] | chosen_inputs[None, :]
            case _:
                chosen = chosen_inputs[:, None] | chosen_outputs[None, :]
        return np.broadcast_to(chosen[wide], array.shape)

    def _goit(self) -> AnyArray:
        """The weight as [groups, O / groups, I / groups, taps], in its own element type."""
        array = constant(self.weight)
        assert array is not None
        rows, columns = self.outputs // self.groups, self.inputs // self.groups
        match self.node.op_type:
            case "ConvTranspose":
                return array.reshape(self.groups, columns, rows, -1).transpose(0, 2, 1, 3)
            case "Conv":
                return array.reshape(self.groups, rows, columns, -1)
            case "Gemm" if attribute_int(self.node, "transB", 0):
                return array[None, :, :, None]
            case _:
                return array.T[None, :, :, None]


def _sum(weight: Float64Array, values: Float64Array) -> Float64Array:
    """[G * R], sum over J of weight [G, R, J], not negative, times values [G * J].

    0 * infinity is 0: an input that is not read may be anything.
    """
    groups, _, columns = weight.shape
    given = values.reshape(groups, columns, 1)

    def over(some: AnyArray) -> Float64Array:
        return np.asarray(np.matmul(weight, some.astype(np.float64)).reshape(-1))

    finite = np.isfinite(given)
    total = over(np.where(finite, given, 0.0))
    if finite.all():
        return total
    total = np.where(over(given == np.inf) > 0, np.inf, total)
    total = np.where(over(given == -np.inf) > 0, -np.inf, total)
    return np.where(over(np.isnan(given)) > 0, np.nan, total)


def layer_of(node: ir.Node) -> Layer | None:
    """The node as a layer; None for other operators, and for a weight computed at run time."""
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or node.inputs[0] is None or constant(node.inputs[0]) is not None:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight.dtype.kind != "f" or (bias is not None and constant(bias) is None):
        return None
    groups = attribute_int(node, "group", 1)
    match node.op_type:
        case "Conv":
            layer = Layer(node, weight.shape[1] * groups, weight.shape[0], groups, 1, padded(node))
        case "ConvTranspose":
            layer = Layer(node, weight.shape[0], weight.shape[1] * groups, groups, 1, True)
        case "Gemm" if _is_plain(node):
            outputs, inputs = (
                weight.shape if attribute_int(node, "transB", 0) else weight.shape[::-1]
            )
            layer = Layer(node, inputs, outputs, 1, 1, False)
        case "MatMul" if weight.ndim == 2:
            layer = Layer(node, weight.shape[0], weight.shape[1], 1, None, False)
        case _:
            return None
    held = constant(bias)
    return layer if held is None or held.size == layer.outputs else None


def _is_plain(node: ir.Node) -> bool:
    scales = {attribute_float(node, "alpha", 1.0), attribute_float(node, "beta", 1.0)}
    return scales == {1.0} and attribute_int(node, "transA", 0) == 0
