"""Operators that compute across an axis: what is cut along it stays whole or goes as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Entries, Labels
from deploykit.graph.channels.operands import cut_operand
from deploykit.graph.channels.rule import (
    Arrangement,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
    nothing,
    place,
)
from deploykit.graph.channels.rule import coordinates as coordinates_of
from deploykit.graph.edit import attribute_int, attribute_ints, constant
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import BoolArray, Float64Array
from deploykit.spec.network import static_shape

OfConstant = Callable[[Float64Array], Float64Array]


@dataclass(frozen=True)
class Across(Plain):
    """y = f(x along some axes), of the same shape: Softmax, LayerNormalization and their kind.

    Where the input is cut along such an axis, every entry of the row counts, zeros included: the
    row is one atom. of_constant: the value of a row that is one constant along its axes.
    """

    axes: tuple[int, ...]
    of_constant: OfConstant
    parameters: tuple[int, ...]

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's."""
        (given,) = inputs
        first = given[
            tuple(slice(0, 1) if k in self.axes else slice(None) for k in range(given.ndim))
        ]
        if first.size != given.size:
            atoms.join(first, given)
        return [given]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class; not followed where it is cut along an axis or has parameters."""
        (given,) = inputs
        if self.parameters or any(given.shape[axis] > 1 for axis in self.axes):
            return [np.full(given.shape, np.nan)]
        return [np.asarray(self.of_constant(given))]

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """All of a row of which anything is live."""
        if all(live[0].shape[axis] == 1 for axis in self.axes):
            return ()
        wanted = live[0].any(axis=self.axes, keepdims=True)
        return [np.array(np.broadcast_to(wanted, live[0].shape))]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Parameters along the axes that are cut."""
        (arranged,) = cutting.arranged
        for index in self.parameters:
            operand = cutting.node.inputs[index]
            if operand is not None and arranged.size:
                cut_operand(cutting.affine, operand, cutting.inputs[0], arranged)
        return [arranged]


def softmax(node: ir.Node) -> Across | None:
    """exp(x) / sum exp(x): a constant row of n becomes 1/n."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    axis = attribute_int(node, "axis", -1) % len(shape)
    share = 1.0 / shape[axis]
    if node.op_type == "LogSoftmax":
        return Across((axis,), lambda c: np.where(np.isnan(c), c, np.log(share)), ())
    return Across((axis,), lambda c: np.where(np.isnan(c), c, share), ())


def layer_norm(node: ir.Node) -> Across | None:
    """Over all axes from `axis` on, with scale and bias of its own."""
    shape = static_shape(node.inputs[0])
    operands = [value for value in node.inputs[1:] if value is not None]
    if shape is None or not all(own_weight(value) for value in operands):
        return None
    axis = attribute_int(node, "axis", -1) % len(shape)
    indices = tuple(k for k in range(1, len(node.inputs)) if node.inputs[k] is not None)
    return Across(tuple(range(axis, len(shape))), np.zeros_like, indices)


def lp_norm(node: ir.Node) -> Across | None:
    """Division by the norm along one axis; constants are not followed."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    axis = attribute_int(node, "axis", -1) % len(shape)
    return Across((axis,), lambda c: np.full_like(c, np.nan), ())


@dataclass(frozen=True)
class Reduce(Plain):
    """y = f(x over some axes). Over axes that are not cut, a constant c becomes f(c).

    Over an axis that is cut, every entry counts, and the result is one new channel.
    """

    axes: tuple[int, ...]
    keeps_axes: bool
    of_constant: OfConstant

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's without those axes; new where it is cut along one of them."""
        (given,) = inputs
        if any(given.shape[axis] > 1 for axis in self.axes):
            shape = [1 if k in self.axes else size for k, size in enumerate(given.shape)]
            return [self._shaped(atoms.fresh(shape))] if int(np.prod(shape)) == 1 else None
        return [self._shaped(given)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        (given,) = inputs
        if any(given.shape[axis] > 1 for axis in self.axes):
            shape = [1 if k in self.axes else size for k, size in enumerate(given.shape)]
            return [self._shaped(np.full(shape, np.nan))]
        return [self._shaped(np.asarray(self.of_constant(given)))]

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """Everything, by a live result of a reduction over channels."""
        (given,) = inputs
        if all(given.shape[axis] == 1 for axis in self.axes):
            return ()
        return [np.full(given.shape, bool(live[0].any()))]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut."""
        (arranged,) = cutting.arranged
        source, target = cutting.inputs[0], cutting.outputs[0]
        if any(source.shape[axis] > 1 for axis in self.axes):
            return [arrange(target, cutting.kept)]
        if arranged.size == 0:
            return [nothing(target)]
        where = coordinates_of(arranged, source)
        if not self.keeps_axes:
            where = [
                np.squeeze(axis, self.axes) for k, axis in enumerate(where) if k not in self.axes
            ]
        return [place(where, target) if where else np.zeros((), dtype=np.int64)]

    def _shaped(self, array: Entries) -> Entries:
        return array if self.keeps_axes else np.squeeze(array, self.axes)


def reduce_mean(node: ir.Node) -> Reduce | None:
    """The mean of a constant is itself; so are its maximum and minimum."""
    return _reduce(node, lambda c: c)


def reduce_other(node: ir.Node) -> Reduce | None:
    """Sums and norms: a constant is not followed, but for zero."""
    return _reduce(node, lambda c: np.where(c == 0, 0.0, np.nan))


def _reduce(node: ir.Node, of_constant: OfConstant) -> Reduce | None:
    shape = static_shape(node.inputs[0])
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if shape is None or len(activations(node)) != 1:
        return None
    named = attribute_ints(node, "axes", ()) if given is None else given.reshape(-1).tolist()
    if not len(named):
        if attribute_int(node, "noop_with_empty_axes", 0):
            return None
        named = tuple(range(len(shape)))
    axes = tuple(sorted(int(axis) % len(shape) for axis in named))
    return Reduce(axes, attribute_int(node, "keepdims", 1) == 1, of_constant)
