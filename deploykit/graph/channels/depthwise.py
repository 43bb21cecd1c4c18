"""Convolutions that give every channel a kernel of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels, full_axis, other_axes_are_one
from deploykit.graph.channels.rule import (
    Arrangement,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
)
from deploykit.graph.channels.windows import taps_inside
from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    floats,
    padded,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import Float64Array


@dataclass(frozen=True)
class Depthwise(Plain):
    """Conv or ConvTranspose with one kernel per channel: weight [C, 1, taps...], group = C.

    Constant where the kernel is zero (then b_c), where the input is a constant zero (b_c), or,
    where every position sees all taps, where the input is constant: b_c + c * sum_taps W_c.
    """

    node: ir.Node
    kernel: Float64Array
    bias: Float64Array
    complete_taps: bool

    @staticmethod
    def of(node: ir.Node) -> Depthwise | None:
        """None unless there are as many groups as input and output channels, and several."""
        if len(node.inputs) < 3 or not own_weight(node.inputs[1]) or not own_weight(node.inputs[2]):
            return None
        weight, bias = floats(node.inputs[1]), floats(node.inputs[2])
        groups = attribute_int(node, "group", 1)
        if weight is None or bias is None or len(activations(node)) != 1:
            return None
        if groups == 1 or weight.shape[:2] != (groups, 1) or len(bias) != groups:
            return None
        complete = node.op_type == "Conv" and not padded(node)
        return Depthwise(node, weight.reshape(groups, -1), bias, complete)

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, written out where one stands for all channels."""
        if not other_axes_are_one(inputs[0], 1):
            return None
        return [full_axis(inputs[0], 1, len(self.bias))]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        written = full_axis(inputs[0], 1, len(self.bias))
        given = written.reshape(-1)
        through = np.where((given != 0) & (not self.complete_taps), np.nan, given)
        dead = ~(self.kernel != 0).any(axis=1)
        found = np.where(dead, self.bias, self.bias + through * self.kernel.sum(axis=1))
        return [found.reshape(written.shape)]

    def border_values(self, given: Constants) -> Float64Array | None:
        """[C, P]: all that a channel of a constant input takes, where padding makes it several.

        NaN for channels whose input is not constant; None where this is not followed.
        """
        stored = constant(self.node.inputs[1])
        if self.node.op_type != "Conv" or self.complete_taps or stored is None:
            return None
        if attribute_string(self.node, "auto_pad", "NOTSET") != "NOTSET" or np.isnan(given).all():
            return None
        rank = stored.ndim - 2
        inside = taps_inside(
            stored.shape[2:],
            attribute_ints(self.node, "dilations", (1,) * rank),
            attribute_ints(self.node, "pads", (0,) * 2 * rank),
        )
        if inside is None:
            return None
        level = full_axis(given, 1, len(self.bias)).reshape(-1, 1)
        return np.asarray(self.bias[:, None] + level * (self.kernel @ inside.T.astype(np.float64)))

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Index weight and bias, set group to the new count."""
        arranged = arrange(cutting.outputs[0], cutting.kept)
        if cutting.inputs[0].size == len(self.bias):
            (arranged,) = cutting.arranged
        channels = arranged.reshape(-1)
        if not len(channels):
            return [arranged]
        self._restate(cutting)
        for operand in cutting.node.inputs[1:3]:
            cutting.affine.take(str(operand.name), channels, 0)  # type: ignore[union-attr]
        cutting.node.attributes["group"] = ir.AttrInt64("group", len(channels))
        return [arranged]

    def _restate(self, cutting: Cutting) -> None:
        """A channel that is constant here is its bias alone, and may be a larger constant now.

        What nobody needs is zero.
        """
        target = cutting.output_constants[0].reshape(-1)
        needed = cutting.needed[cutting.outputs[0]].reshape(-1)
        fixed = ~np.isnan(target)
        weight_name, bias_name = (str(v.name) for v in cutting.node.inputs[1:3])  # type: ignore[union-attr]
        affine = cutting.affine
        still = fixed | ~needed
        weight, spread = floats(affine.graph.initializers[weight_name]), affine.spread(weight_name)
        assert weight is not None
        column = still.reshape(-1, *(1,) * (weight.ndim - 1))
        affine.store(
            weight_name,
            np.where(column, 0.0, weight),
            None if spread is None else np.where(column, 0.0, spread),
        )
        spread = affine.spread(bias_name)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(fixed & (self.bias != 0), target / self.bias, 1.0)
        kept = np.where(fixed, factor**2, 0.0)
        affine.store(
            bias_name,
            np.where(fixed, target, np.where(needed, self.bias, 0.0)),
            None if spread is None else np.where(still, spread * kept, spread),
        )
