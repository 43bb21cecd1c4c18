"""Operators whose every output channel is a weighted sum of input channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.kernel import KernelLayout, taps
from deploykit.graph.channels.labels import (
    Atoms,
    Labels,
    keep_equally_many,
    other_axes_are_one,
)
from deploykit.graph.channels.rows import Rows
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    activations,
    arrange,
)
from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    constant,
    floats,
    padded,
    readers,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import AnyArray, BoolArray, Float64Array, IntArray
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Mixing:
    """Conv, ConvTranspose (any groups), Gemm with transB = 1, MatMul by a constant [I, O].

    touched: [O, I] whether the kernel from i to o has a non-zero tap; sums: [O, I] of its taps;
    bias: [O]; of a MatMul it is what the Add behind it puts on, where that is its only reader.

    An output channel is constant where every input channel that it reads with a non-zero kernel
    is constant, and either that constant is zero or every output position sees all taps:

        c_o = b_o + sum_i c_i * sum_taps W[o, i]
    """

    node: ir.Node
    layout: KernelLayout
    axis: int
    touched: BoolArray
    sums: Float64Array
    bias: ir.Value | None
    complete_taps: bool

    @staticmethod
    def of(node: ir.Node) -> Mixing | None:
        """None where weights or bias are not the node's own constants in the canonical form."""
        source = activations(node)
        if len(source) != 1 or node.inputs[0] is not source[0] or not own_weight(node.inputs[1]):
            return None
        bias = _bias(node)
        weight = floats(node.inputs[1])
        if weight is None or (bias is None and node.op_type != "MatMul"):
            return None
        if node.op_type == "Gemm" and not _is_canonical_gemm(node):
            return None
        shape = static_shape(source[0])
        if shape is None or (node.op_type == "MatMul" and (weight.ndim != 2 or len(shape) < 2)):
            return None
        layout = KernelLayout.of(node)
        kernel = layout.canonical(weight)
        axis = len(shape) - 1 if node.op_type == "MatMul" else 1
        complete = node.op_type in {"Gemm", "MatMul"} or (
            node.op_type == "Conv" and not padded(node)
        )
        return Mixing(
            node,
            layout,
            axis,
            _by_input((kernel != 0).any(axis=taps(kernel)), layout.groups),
            _by_input(kernel.sum(axis=taps(kernel)), layout.groups),
            bias,
            complete,
        )

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """New channels, where the input's labels run along the channels alone."""
        (given,) = inputs
        if not other_axes_are_one(given, self.axis):
            return None
        if given.size == 1 and self.layout.groups > 1 and self.touched.shape[1] > 1:
            return None
        shape = [1] * given.ndim
        shape[self.axis] = len(self.touched)
        return [atoms.fresh(shape)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class. A MatMul without a bias states no constant but zero."""
        given = self.per_channel(inputs[0])
        blocking = np.isnan(given)
        if not self.absorbs():
            blocking = blocking | (given != 0)
        known = ~(self.touched & blocking[None, :]).any(axis=1)
        contribution = self.sums @ np.where(np.isnan(given), 0.0, given)
        bias = None if self.layout.operator == "MatMul" else floats(self.bias)
        total = contribution if bias is None else bias + contribution
        found = np.where(known, total, np.nan)
        shape = [1] * inputs[0].ndim
        shape[self.axis] = -1
        return [found.reshape(shape)]

    def reads(self, live: Sequence[BoolArray]) -> BoolArray | None:
        """Input channels with a non-zero kernel to any live output channel."""
        read = np.asarray(self.touched[live[0].reshape(-1)].any(axis=0))
        shape = [1] * live[0].ndim
        shape[self.axis] = -1
        return read.reshape(shape)

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """Nothing but what it reads."""
        return ()

    def absorbs(self) -> bool:
        """Where every output position sees all taps, and there is a bias to absorb into."""
        return self.complete_taps and self.bias is not None

    def complete(
        self, inputs: Sequence[Labels], outputs: Sequence[Labels], kept: BoolArray
    ) -> None:
        """Groups go whole; those that stay keep equally many inputs, and equally many outputs."""
        groups = self.layout.groups
        if groups == 1:
            return
        rows = [labels.reshape(groups, -1) for labels in (inputs[0], outputs[0])]
        staying = np.any([kept[row].any(axis=1) for row in rows], axis=0)
        for row in rows:
            keep_equally_many(row[staying], kept)

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """W' = W[kept out][:, kept in] with constants moved into bias or into kept kernels.

        The variance of a sum of kernels is the weighted sum of their variances.
        """
        arranged = arrange(cutting.outputs[0], cutting.kept)
        ins = self._kept_inputs(cutting)
        outs = arranged.reshape(-1)
        if not len(outs):
            return [arranged]
        groups = self._groups_left(ins, outs)
        rows = Rows.of(self, cutting, outs)
        rows.move_constants(self, cutting, ins)
        rows.store(self, cutting, ins, groups)
        return [arranged]

    def kernel(self, outputs: BoolArray) -> AnyArray:
        """The canonical weight of some outputs. [o, I, taps...], of a layer without groups"""
        weight = constant(self.node.inputs[1])
        assert weight is not None
        whole = self.layout.canonical(weight)
        return whole if outputs.all() else whole[outputs]

    def per_channel(self, values: Constants) -> Float64Array:
        """Constants of the input [I], written out where one label stands for all channels."""
        return np.array(np.broadcast_to(values.reshape(-1), (self.touched.shape[1],)))

    def _kept_inputs(self, cutting: Cutting) -> IntArray:
        count = self.touched.shape[1]
        if cutting.inputs[0].size == 1 and count > 1:
            return np.arange(count)
        return cutting.arranged[0].reshape(-1)

    def _groups_left(self, ins: IntArray, outs: IntArray) -> int:
        """How many groups stay. Raises CannotArrangeError unless inputs and outputs fit them."""
        groups = self.layout.groups
        if groups == 1:
            return 1
        sizes = [count // groups for count in (self.touched.shape[1], self.touched.shape[0])]
        left = [items // size for items, size in zip((ins, outs), sizes, strict=True)]
        names, _counts = np.unique(left[1], return_counts=True)
        for each in left:
            per = len(each) // len(names)
            if not np.array_equal(each, np.repeat(names, per)):
                raise CannotArrangeError
        return len(names)


Reads = TypeVar("Reads", Float64Array, BoolArray)


def _by_input(values: Reads, groups: int) -> Reads:
    """[O, I/groups] as [O, I], zero (False) between groups."""
    if groups == 1:
        return values
    outputs, per = values.shape
    wide = np.zeros((groups, outputs // groups, groups, per), dtype=values.dtype)
    index = np.arange(groups)
    wide[index, :, index, :] = values.reshape(groups, outputs // groups, per)
    return wide.reshape(outputs, groups * per)


def _is_canonical_gemm(node: ir.Node) -> bool:
    """x @ W' + b with W [O, I] and b [O]."""
    scales = {attribute_float(node, name, 1.0) for name in ("alpha", "beta")}
    transposed = (attribute_int(node, "transA", 0), attribute_int(node, "transB", 0))
    bias = constant(node.inputs[2])
    return scales == {1.0} and transposed == (0, 1) and bias is not None and bias.ndim == 1


def _bias(node: ir.Node) -> ir.Value | None:
    if node.op_type != "MatMul":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return value if own_weight(value) else None
    output = node.outputs[0]
    users = readers(output)
    if len(output.uses()) != 1 or output.is_graph_output() or users[0].op_type != "Add":
        return None
    for value in users[0].inputs:
        array = constant(value)
        width = constant(node.inputs[1])
        if array is None or width is None or not own_weight(value):
            continue
        if array.shape[-1:] == width.shape[-1:] and array.size == array.shape[-1]:
            return value
    return None
