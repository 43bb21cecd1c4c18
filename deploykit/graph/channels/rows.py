"""The rows of a weighted sum that stay, while constants move through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.kernel import taps
from deploykit.graph.channels.rule import (
    Cutting,
)
from deploykit.graph.edit import (
    constant,
    floats,
)
from deploykit.graph.passes.affine import Affine
from deploykit.spec.arrays import BoolArray, Float64Array, IntArray

if TYPE_CHECKING:
    from deploykit.graph.channels.mixing import Mixing


@dataclass
class Rows:
    """The rows of a layer that stay, while they are rewritten.

    outs: [o] which; weight: [o, I/groups, taps...]; bias: [o]; variances where there are any.
    """

    outs: IntArray
    weight: Float64Array
    weight_variance: Float64Array | None
    bias: Float64Array
    bias_variance: Float64Array | None

    @staticmethod
    def of(mixing: Mixing, cutting: Cutting, outs: IntArray) -> Rows:
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
            return Rows(outs, weight, variance, np.zeros(len(outs)), held)
        bias_name = _name(cutting.node.inputs[2])
        bias, bias_spread = floats(affine.graph.initializers[bias_name]), affine.spread(bias_name)
        assert bias is not None
        return Rows(
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
