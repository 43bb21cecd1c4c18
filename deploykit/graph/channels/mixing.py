"""Operators whose every output channel is a weighted sum of all input channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.rule import Constants, Kept, Link, activations
from deploykit.graph.edit import attribute_float, attribute_int, constant, floats, padded
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
        if len(activations(node)) != 1 or len(node.inputs) < 3:
            return False
        if not own_weight(node.inputs[1]) or not own_weight(node.inputs[2]):
            return False
        if node.op_type == "Gemm":
            return _is_canonical_gemm(node)
        return attribute_int(node, "group", 1) == 1

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """See the class."""
        (given,) = inputs
        reads, sums, bias = _touched(node), _tap_sums(_weight(node)), _bias(node)
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
        return node.op_type == "Gemm" or not padded(node)

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """W' = W[kept out][:, kept in] with constants moved into bias or into a kept kernel.

        The variance of a sum of kernels is the weighted sum of their variances.
        """
        weight_value, bias_value = node.inputs[1], node.inputs[2]
        assert weight_value is not None and bias_value is not None
        weight_name, bias_name = str(weight_value.name), str(bias_value.name)
        weight, bias, reads = _weight(node), _bias(node), _touched(node)
        weight_variance = _or_zeros(affine.spread(weight_name), weight)
        bias_variance = _or_zeros(affine.spread(bias_name), bias)
        gone = np.ones(weight.shape[1], dtype=bool)
        gone[kept.inputs[0]] = False
        fixed = ~np.isnan(kept.output_constants)
        value = np.where(np.isnan(kept.input_constants[0]), 0.0, kept.input_constants[0])
        # [O, I]: constants that leave the weight for the bias. A constant output becomes its bias
        # alone, with weight 0: its own sum may name channels that are gone.
        moved = (reads & fixed[:, None]) | (gone[None, :] & self.absorbs(node))
        bias += (moved * _tap_sums(weight)) @ value
        bias_variance += (moved * _tap_sums(weight_variance)) @ value**2
        for channel, (into, ratio) in kept.merged.items():
            weight[:, into] += ratio * weight[:, channel]
            weight_variance[:, into] += ratio**2 * weight_variance[:, channel]
        weight[fixed] = 0.0
        weight_variance[fixed] = 0.0
        rows = np.ix_(kept.output, kept.inputs[0])
        affine.store(weight_name, weight[rows], weight_variance[rows])
        affine.store(bias_name, bias[kept.output], bias_variance[kept.output])


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


def _tap_sums(weight: Float64Array) -> Float64Array:
    """[O, I]"""
    return np.asarray(weight.sum(axis=_taps(weight)))


def _or_zeros(variance: Float64Array | None, like: Float64Array) -> Float64Array:
    return np.zeros_like(like) if variance is None else variance


def _is_canonical_gemm(node: ir.Node) -> bool:
    """x @ W' + b with W [O, I] and b [O]."""
    scales = {attribute_float(node, name, 1.0) for name in ("alpha", "beta")}
    transposed = (attribute_int(node, "transA", 0), attribute_int(node, "transB", 0))
    bias = constant(node.inputs[2])
    return scales == {1.0} and transposed == (0, 1) and bias is not None and bias.ndim == 1


def range_growth(
    node: ir.Node,
    live: BoolArray,
    given: Constants,
    members: Sequence[int],
    into: int,
    ratios: Float64Array,
) -> float:
    """How far the weight range of a live output channel grows at most when `members` merge.

    Against the largest |weight| before, over the input channels that are not constant zeros (those
    go anyway). 1.0: not at all.
    """
    weight = _weight(node)[live]
    before = _largest(weight[:, given != 0])
    merged = weight[:, [into]]
    for channel, ratio in zip(members, ratios, strict=True):
        merged = merged + ratio * weight[:, [channel]]
    inside = before > 0
    return float((_largest(merged)[inside] / before[inside]).max(initial=1.0))


def _largest(weight: Float64Array) -> Float64Array:
    """Largest |weight| of each output channel. [O]"""
    return np.asarray(np.abs(weight).max(axis=tuple(range(1, weight.ndim)), initial=0.0))
