"""Convolutions and linears as rows [O, I/groups, taps], and what scales them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, constant, label
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import AnyArray, Float64Array, IntArray
from deploykit.spec.network import static_shape

LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm"))


@dataclass(frozen=True)
class WeightedLayer:
    """A layer whose weight and bias are its own constants.

    source, output: names of the tensors. bias: None where it has none. columns: [O, I/groups], of
    each number of a row the input channel that it multiplies.
    """

    name: str
    node: ir.Node
    source: str
    output: str
    weight: str
    bias: str | None
    groups: int
    inputs: int
    outputs: int

    @property
    def columns(self) -> IntArray:
        """See the class."""
        each = self.inputs // self.groups
        first = np.arange(self.outputs) // (self.outputs // self.groups) * each
        return np.asarray(first[:, None] + np.arange(each))

    def rows(self, weight: AnyArray) -> Float64Array:
        """[O, I/groups, taps] of the weight as it is stored."""
        wide = weight.astype(np.float64)
        if self.node.op_type == "ConvTranspose":
            wide = wide.reshape(self.groups, self.inputs // self.groups, *wide.shape[1:])
            wide = wide.swapaxes(1, 2)
        elif self._transposed:
            wide = wide.T
        return np.ascontiguousarray(wide).reshape(self.outputs, self.inputs // self.groups, -1)

    def as_stored(self, factors: Float64Array) -> Float64Array:
        """Factors [O, I/groups] in a shape that broadcasts to the weight as it is stored.

        One per row, [O, 1, ...], where rows come first and have one each.
        """
        if self.rows_first and (factors == factors[:, :1]).all():
            factors = factors[:, :1]
        if self.node.op_type == "ConvTranspose":
            each = self.outputs // self.groups
            apart = factors.reshape(self.groups, each, -1).swapaxes(1, 2)
            taps = (1,) * (len(static_shape(self.node.inputs[1]) or ()) - 2)
            return np.ascontiguousarray(apart).reshape(self.inputs, each, *taps)
        if self.node.op_type == "Gemm":
            return factors.T if self._transposed else factors
        taps = (1,) * (len(static_shape(self.node.inputs[1]) or ()) - 2)
        return factors.reshape(*factors.shape, *taps)

    @property
    def rows_first(self) -> bool:
        """Whether the weight's first axis runs along the outputs."""
        return self.node.op_type == "Conv" or (self.node.op_type == "Gemm" and not self._transposed)

    @property
    def _transposed(self) -> bool:
        return self.node.op_type == "Gemm" and not attribute_int(self.node, "transB", 0)


def weighted_layer(node: ir.Node) -> WeightedLayer | None:
    """The layer that a node is; None where its numbers cannot be scaled alone."""
    if node.op_type not in LAYERS or node.domain not in {"", "ai.onnx"} or len(node.outputs) != 1:
        return None
    source, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array, shape = constant(weight), static_shape(source)
    if source is None or weight is None or array is None or shape is None or array.ndim < 2:
        return None
    if source.const_value is not None or not own_weight(weight) or array.dtype.kind != "f":
        return None
    groups = attribute_int(node, "group", 1)
    match node.op_type:
        case "Conv":
            outputs, inputs = array.shape[0], array.shape[1] * groups
        case "ConvTranspose":
            outputs, inputs = array.shape[1] * groups, array.shape[0]
        case _:
            transposed = attribute_int(node, "transB", 0)
            outputs, inputs = array.shape if transposed else array.shape[::-1]
            if attribute_int(node, "transA", 0) or len(shape) != 2:
                return None
    if len(shape) < 2 or shape[1] != inputs or math.prod(array.shape) == 0:
        return None
    name = None
    if bias is not None:
        held = constant(bias)
        if held is None or not own_weight(bias) or held.shape != (outputs,):
            return None
        name = str(bias.name)
    return WeightedLayer(
        label(node), node, str(source.name), str(node.outputs[0].name), str(weight.name), name,
        groups, inputs, outputs,
    )  # fmt: skip
