"""Operators whose every output channel is a weighted sum of input channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.kernel import KernelLayout, taps
from deploykit.graph.channels.labels import Atoms, Labels, full_axis, other_axes_are_one
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
)
from deploykit.graph.channels.windows import taps_inside
from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    floats,
    padded,
    readers,
)
from deploykit.graph.passes.affine import Affine, own_weight
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
        rows = _Rows.of(self, cutting, outs)
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


@dataclass
class _Rows:
    """The rows of a layer that stay, while they are rewritten.

    outs: [o] which; weight: [o, I/groups, taps...]; bias: [o]; variances where there are any.
    """

    outs: IntArray
    weight: Float64Array
    weight_variance: Float64Array | None
    bias: Float64Array
    bias_variance: Float64Array | None

    @staticmethod
    def of(mixing: Mixing, cutting: Cutting, outs: IntArray) -> _Rows:
        """Of the node that is being cut; a MatMul starts with a bias of zero."""
        layout, affine = mixing.layout, cutting.affine
        name = _name(cutting.node.inputs[1])
        stored, spread = constant(affine.graph.initializers[name]), affine.variance.get(name)
        assert stored is not None
        weight = layout.canonical(stored)[outs].astype(np.float64)
        variance = None if spread is None else layout.canonical(spread)[outs].astype(np.float64)
        if layout.operator == "MatMul":
            follower = None if mixing.bias is None else affine.spread(_name(mixing.bias))
            held = None if follower is None else np.zeros(len(outs))
            return _Rows(outs, weight, variance, np.zeros(len(outs)), held)
        bias_name = _name(cutting.node.inputs[2])
        bias, bias_spread = floats(affine.graph.initializers[bias_name]), affine.spread(bias_name)
        assert bias is not None
        return _Rows(
            outs, weight, variance, bias[outs], None if bias_spread is None else bias_spread[outs]
        )

    def move_constants(self, mixing: Mixing, cutting: Cutting, ins: IntArray) -> None:
        """Bias and kept kernels take over what constant channels that go had contributed."""
        before = mixing.per_channel(cutting.constants_before[0])
        after = mixing.per_channel(cutting.constants[0])
        gone = np.ones(len(before), dtype=bool)
        gone[ins] = False
        fixed_at = cutting.output_constants[0].reshape(-1)[self.outs]
        fixed = ~np.isnan(fixed_at)
        needed = cutting.needed[cutting.outputs[0]].reshape(-1)[self.outs]
        value = np.where(np.isnan(before), 0.0, before)
        # [o, I]: constants that leave the weight for the bias. A constant output becomes its bias
        # alone, with weight 0: its own sum may name channels that are gone.
        touched = mixing.touched[self.outs]
        moved = touched & (fixed[:, None] | (gone[None, :] & mixing.absorbs())) & (value != 0)
        if moved.any():
            self.bias = self.bias + (moved * mixing.sums[self.outs]) @ value
            if self.bias_variance is not None and self.weight_variance is not None:
                spread = self._by_input(self.weight_variance.sum(axis=taps(self.weight)), mixing)
                self.bias_variance = self.bias_variance + (moved * spread) @ value**2
        self._state(fixed, fixed_at)
        self._rescale(mixing, before, after)
        if not mixing.absorbs() and cutting.merge is not None:
            members = np.flatnonzero(gone & (value != 0.0))
            self._merge(cutting.merge.survivors, members, before, after)
        self._clear(fixed | ~needed, ~fixed & ~needed)

    def store(self, mixing: Mixing, cutting: Cutting, ins: IntArray, groups: int) -> None:
        """Write back what stays."""
        affine, node, layout = cutting.affine, cutting.node, mixing.layout
        if layout.groups == 1:
            columns: tuple[IntArray, ...] | tuple[slice, IntArray] = (slice(None), ins)
        else:
            within = (ins % self.weight.shape[1]).reshape(groups, -1)
            columns = (
                np.arange(len(self.outs))[:, None],
                np.repeat(within, len(self.outs) // groups, axis=0),
            )
            node.attributes["group"] = ir.AttrInt64("group", groups)
        variance = None if self.weight_variance is None else self.weight_variance[columns]
        affine.store(
            _name(node.inputs[1]),
            layout.stored(self.weight[columns], groups),
            None if variance is None else layout.stored(variance, groups),
        )
        if layout.operator != "MatMul":
            affine.store(_name(node.inputs[2]), self.bias, self.bias_variance)
        elif mixing.bias is not None:
            self._store_behind(affine, _name(mixing.bias))

    def _store_behind(self, affine: Affine, name: str) -> None:
        """The Add behind a MatMul is cut after it, so its operand still has every channel."""
        held, spread = floats(affine.graph.initializers[name]), affine.spread(name)
        assert held is not None
        held, spread = held.copy(), None if spread is None else spread.copy()
        held[..., self.outs] += self.bias
        if spread is not None and self.bias_variance is not None:
            spread[..., self.outs] += self.bias_variance
        affine.store(name, held, spread)

    def _state(self, fixed: BoolArray, fixed_at: Float64Array) -> None:
        """A constant output that other tensors merge into may hold a larger number than before."""
        if self.bias_variance is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = np.where(fixed & (self.bias != 0), fixed_at / self.bias, 1.0)
            self.bias_variance = self.bias_variance * factor**2
        self.bias = np.where(fixed, fixed_at, self.bias)

    def _rescale(self, mixing: Mixing, before: Float64Array, after: Float64Array) -> None:
        """Kernels of constants that are restated: W' = W * before / after."""
        changed = ~np.isnan(before) & (before != after)
        if not changed.any():
            return
        ratio = np.ones(len(before))
        ratio[changed] = before[changed] / after[changed]
        groups = mixing.layout.groups
        row_group = self.outs // (len(mixing.touched) // groups)
        rows = ratio.reshape(groups, -1)[row_group]
        rows = rows.reshape(*rows.shape, *(1,) * (self.weight.ndim - 2))
        self.weight *= rows
        if self.weight_variance is not None:
            self.weight_variance *= rows**2

    def _merge(
        self,
        survivors: tuple[int, ...],
        members: IntArray,
        before: Float64Array,
        after: Float64Array,
    ) -> None:
        """Every survivor's kernel becomes an equal share of all constants' sum, see collapse.

        The survivors' own kernels are rescaled to the restated constants already.
        """
        summed = np.concatenate([members, np.array(survivors, dtype=members.dtype)])
        values = np.concatenate([before[members], after[list(survivors)]])
        total = np.tensordot(self.weight[:, summed], values, axes=(1, 0))
        for survivor in survivors:
            self.weight[:, survivor] = total / (len(survivors) * after[survivor])
        if self.weight_variance is None:
            return
        spread = np.tensordot(self.weight_variance[:, summed], values**2, axes=(1, 0))
        for survivor in survivors:
            self.weight_variance[:, survivor] = spread / (len(survivors) * after[survivor]) ** 2

    def _clear(self, weights: BoolArray, biases: BoolArray) -> None:
        for array in (self.weight, self.weight_variance):
            if array is not None:
                array[weights] = 0.0
        for array in (self.bias, self.bias_variance):
            if array is not None:
                array[biases] = 0.0

    def _by_input(self, values: Float64Array, mixing: Mixing) -> Float64Array:
        """[o, I/groups] as [o, I], zero between groups."""
        groups, per = mixing.layout.groups, values.shape[1]
        if groups == 1:
            return values
        wide = np.zeros((len(values), groups, per))
        row_group = self.outs // (len(mixing.touched) // groups)
        wide[np.arange(len(values)), row_group] = values
        return wide.reshape(len(values), groups * per)


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)


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


@dataclass(frozen=True)
class SpatialMatMul(Plain):
    """MatMul by a constant along an axis that is not cut: every channel goes through the same sum.

    A constant zero stays zero; any other constant is not followed.
    """

    @staticmethod
    def of(node: ir.Node) -> SpatialMatMul | None:
        """x [..., I] times a constant [I, O]."""
        weight = constant(node.inputs[1])
        return SpatialMatMul() if weight is not None and weight.ndim == 2 else None

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, where the last axis is not cut."""
        return [inputs[0]] if inputs[0].shape[-1] == 1 else None

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        return [np.where(inputs[0] == 0, 0.0, np.nan)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut."""
        return cutting.arranged[:1]


Reads = TypeVar("Reads", Float64Array, BoolArray)


def keep_equally_many(rows: Labels, kept: BoolArray) -> None:
    """Mark further atoms until every row [rows, entries] keeps as many entries as the fullest.

    Atoms that already stay come first, then the row's first ones.
    """
    while True:
        counts = kept[rows].sum(axis=1)
        most = max(int(counts.max(initial=0)), 1)
        short = np.flatnonzero(counts < most)
        if not len(short):
            return
        for row in short:
            missing = rows[row][~kept[rows[row]]]
            kept[missing[: most - int(kept[rows[row]].sum())]] = True


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
