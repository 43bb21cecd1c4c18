"""Operators that keep every element and its order, or only permute whole axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Entries, Labels, keep_equally_many
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    Plain,
    activations,
    coordinates,
    nothing,
    place,
)
from deploykit.graph.edit import attribute_ints, constant, fresh_name, set_initializer
from deploykit.spec.arrays import BoolArray, IntArray
from deploykit.spec.network import static_shape

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Plain):
    """Reshape, Flatten, Squeeze, Unsqueeze between static shapes.

    The axes fall into groups of equal product, [C, H, W] to [C*H*W] say, or [h*d] to [h, d]. A
    group in which no axis is cut stays so; in another one, every axis of the result may be cut
    along which its labels differ.
    """

    node: ir.Node
    before: Shape
    after: Shape

    @staticmethod
    def of(node: ir.Node) -> Reshape | None:
        """None unless both shapes are static."""
        before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if len(activations(node)) != 1 or before is None or after is None or 0 in before:
            return None
        return Reshape(node, before, after)

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's entries in the output's axes."""
        written = self._written_out(inputs[0])
        for axis in range(written.ndim):
            first = np.take(written, [0], axis=axis)
            if np.array_equal(np.broadcast_to(first, written.shape), written):
                written = first
        return [written]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """The input's entries in the output's axes; the labels say which of them are cut."""
        return [self._written_out(inputs[0])]

    def complete(
        self, inputs: Sequence[Labels], outputs: Sequence[Labels], kept: BoolArray
    ) -> None:
        """Every surviving row of the result keeps equally many entries."""
        labels = outputs[0]
        for group in self._cut_groups(inputs[0].shape):
            wide = [axis for axis in group[1] if labels.shape[axis] > 1]
            if len(wide) < 2:
                continue
            others = [axis for axis in range(labels.ndim) if axis not in wide]
            stacked = labels.transpose(*wide, *others).reshape(
                *(labels.shape[axis] for axis in wide[:-1]), -1
            )
            surviving = np.asarray(kept[stacked].any(axis=-1))
            for axis in range(surviving.ndim):
                along = tuple(other for other in range(surviving.ndim) if other != axis)
                line = np.asarray(surviving.any(axis=along)) if along else surviving
                stacked = np.compress(line, stacked, axis=axis)
                surviving = np.compress(line, surviving, axis=axis)
            if stacked.size:
                keep_equally_many(stacked.reshape(-1, stacked.shape[-1]), kept)

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """The target of a Reshape, and where everything is now."""
        source, target = cutting.inputs[0], cutting.outputs[0]
        (arranged,) = cutting.arranged
        if arranged.size == 0:
            return [nothing(target)]
        # Places in the output's labels, in the input's written-out axes.
        wide_in, wide_out = self._wide_shapes(source.shape)
        places = np.arange(target.size).reshape(target.shape)
        spread = np.broadcast_to(places, wide_out).reshape(wide_in)
        index: list[IntArray] = []
        for axis, where in enumerate(coordinates(arranged, source)):
            if wide_in[axis] > 1 and source.shape[axis] == 1:
                along = [1] * source.ndim
                along[axis] = -1
                index.append(np.arange(wide_in[axis]).reshape(along))
            else:
                index.append(where)
        found = spread[tuple(index)]
        shape = self._new_shape(found, source.shape, target, wide_out)
        found = found.reshape(shape)
        for axis in range(found.ndim):
            if target.shape[axis] == 1 and found.shape[axis] > 1:
                first = np.take(found, [0], axis=axis)
                if not np.array_equal(np.broadcast_to(first, found.shape), found):
                    raise CannotArrangeError
                found = first
        _check_rows(found, target)
        if self.node.op_type == "Reshape":
            self._retarget(cutting, found)
        return [found]

    def _new_shape(
        self, found: IntArray, cut_in: Shape, target: Labels, wide_out: Shape
    ) -> list[int]:
        """Sizes of the written-out result after the cut: rows that survive, and their share."""
        where = coordinates(found, target)
        shape = [1] * len(self.after)
        sizes = list(found.shape)
        for ins, outs in self._cut_groups(cut_in):
            total = int(np.prod([sizes[axis] for axis in ins], dtype=np.int64))
            lengths = []
            for axis in outs:
                cut = target.shape[axis] > 1
                lengths.append(len(np.unique(where[axis])) if cut else wide_out[axis])
            ragged = [axis for axis in outs if target.shape[axis] > 1]
            if ragged:
                last = outs.index(ragged[-1])
                rest = int(np.prod(lengths[:last] + lengths[last + 1 :], dtype=np.int64))
                if rest == 0 or total % rest:
                    raise CannotArrangeError
                lengths[last] = total // rest
            elif int(np.prod(lengths, dtype=np.int64)) != total:
                raise CannotArrangeError
            for axis, length in zip(outs, lengths, strict=True):
                shape[axis] = length
        return shape

    def _retarget(self, cutting: Cutting, found: Arrangement) -> None:
        graph, node = cutting.affine.graph, cutting.node
        given = constant(node.inputs[1])
        assert given is not None
        sizes = cut_shape(self.after, cutting.outputs[0], found)
        before = cut_shape(self.before, cutting.inputs[0], cutting.arranged[0])
        keeps_zero = [
            int(entry) == 0 and axis < len(before) and before[axis] == sizes[axis]
            for axis, entry in enumerate(given)
        ]
        wanted = [
            0 if zero else -1 if int(entry) == -1 else size
            for zero, entry, size in zip(keeps_zero, given, sizes, strict=True)
        ]
        if wanted != [int(entry) for entry in given]:
            name = fresh_name(graph, f"{node.inputs[1].name}.cut")  # type: ignore[union-attr]
            node.replace_input_with(1, set_initializer(graph, name, np.array(wanted, np.int64)))

    def _written_out(self, array: Entries) -> Entries:
        wide_in, wide_out = self._wide_shapes(array.shape)
        return np.broadcast_to(array, wide_in).reshape(wide_out)

    def _wide_shapes(self, cut: Shape) -> tuple[Shape, Shape]:
        """Shapes of the labels written out along every axis of a group that is cut at all."""
        wide_in, wide_out = [1] * len(self.before), [1] * len(self.after)
        for ins, outs in self._cut_groups(cut):
            for axis in ins:
                wide_in[axis] = self.before[axis]
            for axis in outs:
                wide_out[axis] = self.after[axis]
        return tuple(wide_in), tuple(wide_out)

    def _cut_groups(self, cut: Shape) -> list[tuple[list[int], list[int]]]:
        groups = axis_groups(self.before, self.after)
        return [group for group in groups if any(cut[axis] > 1 for axis in group[0])]


def _check_rows(found: Arrangement, target: Labels) -> None:
    """A leading coordinate is the same across the whole of its slice; only the last may differ."""
    wide = [axis for axis, size in enumerate(target.shape) if size > 1]
    where = coordinates(found, target)
    for axis in wide[:-1]:
        moved = np.moveaxis(where[axis], axis, 0).reshape(found.shape[axis], -1)
        if (moved != moved[:, :1]).any():
            raise CannotArrangeError


def axis_groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The finest matching of axes by equal products.

    axis_groups((1, 6, 4), (1, 2, 3, 4)) -> [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = ([i], [j]) if i < len(before) and j < len(after) else ([], [])
        left = before[i] if ins else 1
        right = after[j] if outs else 1
        i, j = i + len(ins), j + len(outs)
        while left != right:
            if left < right:
                ins.append(i)
                left *= before[i]
                i += 1
            else:
                outs.append(j)
                right *= after[j]
                j += 1
        if not ins and not outs:
            # Axes of size 1 at the end of one side.
            target = groups[-1] if groups else ([], [])
            target[0].extend(range(i, len(before)))
            target[1].extend(range(j, len(after)))
            if not groups:
                groups.append(target)
            return groups
        groups.append((ins, outs))
    return groups


def cut_shape(shape: Shape, labels: Labels, arranged: Arrangement) -> Shape:
    """Sizes of a tensor after the cut."""
    if arranged.size == 0:
        return tuple(0 if labels.shape[k] > 1 else size for k, size in enumerate(shape))
    return tuple(
        arranged.shape[axis] if labels.shape[axis] > 1 else size for axis, size in enumerate(shape)
    )


@dataclass(frozen=True)
class Transpose(Plain):
    """Axes in another order."""

    perm: Shape

    @staticmethod
    def of(node: ir.Node) -> Transpose | None:
        """perm, or reversed without one."""
        shape = static_shape(node.inputs[0])
        if shape is None or len(activations(node)) != 1:
            return None
        return Transpose(attribute_ints(node, "perm", tuple(reversed(range(len(shape))))))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, transposed."""
        return [inputs[0].transpose(self.perm)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """The input's, transposed."""
        return [inputs[0].transpose(self.perm)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut."""
        (arranged,) = cutting.arranged
        where = coordinates(arranged, cutting.inputs[0])
        turned = [where[axis].transpose(self.perm) for axis in self.perm]
        return [place(turned, cutting.outputs[0])]
