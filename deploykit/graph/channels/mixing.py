"""Operators whose every output channel is a weighted sum of all input channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.rule import Constants, Kept, Link
from deploykit.graph.edit import attribute_int, attribute_ints, floats, set_initializer
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.spec.arrays import BoolArray, Float64Array


@dataclass(frozen=True)
class Mixing:
    """Conv (groups = 1) [O, I, kh, kw] and Gemm with transB = 1 [O, I], with constant parameters.

    An output channel is constant where every input channel that it reads with a non-zero kernel
    is constant, and either that constant is zero or no position of the output sees padding:

        c_o = b_o + sum_i c_i * sum_taps W[o, i]
    """

    def supports(self, node: ir.Node) -> bool:
        """Whether weights and bias are this node's own constants in the canonical layout."""
        if len(node.inputs) < 3 or not own_weight(node.inputs[1]) or not own_weight(node.inputs[2]):
            return False
        if node.op_type == "Gemm":
            return attribute_int(node, "transB", 0) == 1 and attribute_int(node, "transA", 0) == 0
        return attribute_int(node, "group", 1) == 1

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """See the class."""
        (given,) = inputs
        reads, sums, bias = _touched(node), _tap_sums(node), _bias(node)
        blocking = np.isnan(given)
        if not self.absorbs(node):
            blocking = blocking | (given != 0)
        known = ~(reads & blocking[None, :]).any(axis=1)
        contribution = sums @ np.where(np.isnan(given), 0.0, given)
        return np.where(known, bias + contribution, np.nan)

    def links(self, node: ir.Node) -> Sequence[Link]:
        """None: input and output channels live apart."""
        return ()

    def reads(self, node: ir.Node, live: BoolArray) -> BoolArray:
        """Input channels with a non-zero kernel to any live output channel."""
        return np.asarray(_touched(node)[live].any(axis=0))

    def absorbs(self, node: ir.Node) -> bool:
        """A Gemm, or a convolution without padding."""
        return node.op_type == "Gemm" or not any(attribute_ints(node, "pads", (0, 0, 0, 0)))

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """W' = W[kept out][:, kept in] with constants moved into bias or into a kept kernel.

        The variance of a sum of kernels is the weighted sum of their variances.
        """
        weight_value, bias_value = node.inputs[1], node.inputs[2]
        assert weight_value is not None and bias_value is not None
        weight_name, bias_name = str(weight_value.name), str(bias_value.name)
        weight, bias = _weight(node), _bias(node)
        graph, variance = affine.graph, affine.variance
        weight_variance = _or_zeros(variance.get(weight_name), weight)
        bias_variance = _or_zeros(variance.get(bias_name), bias)
        constants = kept.input_constants[0]
        gone = np.setdiff1d(np.arange(weight.shape[1]), kept.inputs[0])
        for channel in gone:
            value = constants[channel]
            if np.isnan(value) or value == 0.0:
                continue
            if channel in kept.merged:
                into, ratio = kept.merged[int(channel)]
                weight[:, into] += ratio * weight[:, channel]
                weight_variance[:, into] += ratio**2 * weight_variance[:, channel]
            elif self.absorbs(node):
                taps = tuple(range(1, weight.ndim - 1))
                bias += value * weight[:, channel].sum(axis=taps)
                bias_variance += value**2 * weight_variance[:, channel].sum(axis=taps)
        # A constant output is restated as weight 0, bias c: its own sum may name channels now gone.
        fixed = ~np.isnan(kept.output_constants)
        weight[fixed] = 0.0
        weight_variance[fixed] = 0.0
        bias[fixed] = kept.output_constants[fixed]
        rows = np.ix_(kept.output, kept.inputs[0])
        set_initializer(graph, weight_name, weight[rows].astype(np.float32))
        set_initializer(graph, bias_name, bias[kept.output].astype(np.float32))
        if weight_name in variance:
            variance[weight_name] = weight_variance[rows].astype(np.float32)
        if bias_name in variance:
            variance[bias_name] = bias_variance[kept.output].astype(np.float32)
        affine.updated.update((weight_name, bias_name))


def _weight(node: ir.Node) -> Float64Array:
    array = floats(node.inputs[1])
    assert array is not None
    return array


def _bias(node: ir.Node) -> Float64Array:
    array = floats(node.inputs[2])
    assert array is not None
    return array


def _taps(weight: Float64Array) -> tuple[int, ...]:
    return tuple(range(2, weight.ndim))


def _touched(node: ir.Node) -> BoolArray:
    """[O, I]: whether the kernel from i to o has a non-zero tap."""
    weight = _weight(node)
    return np.asarray((weight != 0).any(axis=_taps(weight)))


def _tap_sums(node: ir.Node) -> Float64Array:
    weight = _weight(node)
    return np.asarray(weight.sum(axis=_taps(weight)))


def _or_zeros(variance: object, like: Float64Array) -> Float64Array:
    if variance is None:
        return np.zeros_like(like)
    return np.asarray(variance, dtype=np.float64).copy()


def merged_rows(
    node: ir.Node, members: Sequence[int], into: int, ratios: Float64Array
) -> Float64Array:
    """Kernel [O, taps...] of channel `into` after taking in `members` times `ratios`."""
    weight = _weight(node)
    shape = (-1,) + (1,) * (weight.ndim - 2)
    picked = weight[:, list(members)] * ratios.reshape((1, *shape))
    return np.asarray(weight[:, into] + picked.sum(axis=1))


def row_ranges(node: ir.Node) -> Float64Array:
    """Largest |weight| of each output channel. [O]"""
    weight = _weight(node)
    return np.asarray(np.abs(weight).reshape(weight.shape[0], -1).max(axis=1))
