"""Operators that take channels out of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Entries, Labels
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
from deploykit.graph.edit import (
    attribute_int,
    constant,
    fresh_name,
    label,
    set_initializer,
    set_operand,
    take_over,
)
from deploykit.spec.arrays import IntArray
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Select(Plain):
    """Split, Slice, Gather by constants along one axis: output k holds entries `taken[k]`.

    drops_axis: a Gather by one number, whose result has no such axis. several: every axis that a
    Slice shortens, where it shortens more than one; then none of them is cut.
    """

    node: ir.Node
    axis: int
    size: int
    taken: tuple[IntArray, ...]
    drops_axis: bool = False
    several: tuple[int, ...] = ()

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The entries that are taken."""
        if any(inputs[0].shape[axis] > 1 for axis in self.several):
            return None
        return [self._selected(inputs[0], index) for index in self.taken]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """The entries that are taken."""
        return [self._selected(inputs[0], index) for index in self.taken]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """The same entries where they are now."""
        source = cutting.inputs[0]
        (arranged,) = cutting.arranged
        if source.shape[self.axis] == 1 and not (self.drops_axis and self.size == 1):
            return [
                self._dropped(arranged, source, labels) if self.drops_axis else arranged
                for labels in cutting.outputs
            ]
        if arranged.size == 0:
            return [nothing(labels) for labels in cutting.outputs]
        where = coordinates(arranged, source)
        along = np.moveaxis(where[self.axis], self.axis, 0).reshape(arranged.shape[self.axis], -1)
        if (along != along[:, :1]).any():
            raise CannotArrangeError
        there = {int(entry): position for position, entry in enumerate(along[:, 0])}
        found: list[Arrangement] = []
        positions: list[IntArray] = []
        for index, labels in zip(self.taken, cutting.outputs, strict=True):
            stays = [k for k, entry in enumerate(index) if int(entry) in there]
            position = np.array([there[int(index[k])] for k in stays], dtype=np.int64)
            positions.append(position)
            found.append(self._placed(where, position, stays, labels))
        self._rewrite(cutting, positions, arranged.shape[self.axis])
        return found

    def _placed(
        self, where: list[IntArray], position: IntArray, stays: list[int], labels: Labels
    ) -> Arrangement:
        if not len(position):
            return nothing(labels)
        taken = [np.take(axis, position, axis=self.axis) for axis in where]
        column = [1] * taken[0].ndim
        column[self.axis] = -1
        taken[self.axis] = np.broadcast_to(np.array(stays).reshape(column), taken[0].shape)
        if self.drops_axis:
            del taken[self.axis]
            taken = [np.squeeze(axis, self.axis) for axis in taken]
        return place(taken, labels)

    def _dropped(self, arranged: Arrangement, source: Labels, labels: Labels) -> Arrangement:
        if arranged.size == 0:
            return nothing(labels)
        where = coordinates(arranged, source)
        del where[self.axis]
        return place([np.squeeze(axis, self.axis) for axis in where], labels)

    def _selected(self, array: Entries, index: IntArray) -> Entries:
        if array.shape[self.axis] == 1:
            return np.squeeze(array, self.axis) if self.drops_axis else array
        chosen = np.take(array, index, axis=self.axis)
        return np.squeeze(chosen, self.axis) if self.drops_axis else chosen

    def _rewrite(self, cutting: Cutting, positions: list[IntArray], length: int) -> None:
        """New sizes, bounds or indices; a Slice or Split that is no longer one becomes a Gather."""
        graph, node = cutting.affine.graph, cutting.node
        if self.drops_axis:
            if len(positions[0]):
                set_operand(graph, node, 1, np.array(int(positions[0][0]), np.int64))
            return
        filled = [k for k, position in enumerate(positions) if len(position)]
        if node.op_type == "Split":
            _split(graph, node, self.axis, [positions[k] for k in filled], filled, length)
            return
        if not filled:
            return
        position = positions[0]
        if node.op_type == "Slice" and _is_run(position):
            bounds = [position[0], position[-1] + 1, self.axis, 1]
            for index, number in enumerate(bounds, 1):
                if len(node.inputs) <= index:
                    node.resize_inputs(index + 1)
                set_operand(graph, node, index, np.array([number], np.int64))
        elif node.op_type == "Slice":
            _gather_instead(graph, node, node.outputs[0], self.axis, position)
        else:
            set_operand(graph, node, 1, position)


def select(node: ir.Node) -> Select | None:
    """The row of Split, Slice and Gather; None for several axes at once or computed bounds."""
    shape = static_shape(node.inputs[0])
    if shape is None or len(activations(node)) != 1 or node.inputs[0] is not activations(node)[0]:
        return None
    match node.op_type:
        case "Split":
            axis = attribute_int(node, "axis", 0) % len(shape)
            sizes = [static_shape(output) for output in node.outputs]
            ends = np.cumsum([0 if size is None else size[axis] for size in sizes])
            if int(ends[-1]) != shape[axis]:
                return None
            starts = [0, *ends[:-1]]
            taken = tuple(np.arange(a, b) for a, b in zip(starts, ends, strict=True))
            return Select(node, axis, shape[axis], taken)
        case "Gather":
            axis = attribute_int(node, "axis", 0) % len(shape)
            index = constant(node.inputs[1])
            if index is None or index.ndim > 1:
                return None
            taken_index = index.reshape(-1) % shape[axis]
            return Select(node, axis, shape[axis], (taken_index,), index.ndim == 0)
        case _:
            return _slice(node, shape)


def _slice(node: ir.Node, shape: tuple[int, ...]) -> Select | None:
    bounds = [constant(value) for value in node.inputs[1:]]
    starts, ends, given_axes, given_steps = (*bounds, None, None, None, None)[:4]
    if starts is None or ends is None:
        return None
    axes = np.arange(starts.size) if given_axes is None else given_axes.reshape(-1) % len(shape)
    steps = np.ones(starts.size, int) if given_steps is None else given_steps.reshape(-1)
    shortened: dict[int, Select] = {}
    for start, end, axis, step in zip(
        starts.reshape(-1), ends.reshape(-1), map(int, axes), steps, strict=True
    ):
        entries = np.arange(shape[axis])[_python_slice(int(start), int(end), int(step))]
        if not np.array_equal(entries, np.arange(shape[axis])):
            shortened[axis] = Select(node, axis, shape[axis], (entries,))
    if not shortened:
        return Select(node, 0, shape[0], (np.arange(shape[0]),)) if shape else None
    first = next(iter(shortened.values()))
    return first if len(shortened) == 1 else replace(first, several=tuple(shortened))


def _python_slice(start: int, end: int, step: int) -> slice:
    """ONNX counts from the end like Python; an end before the first entry is a very small one."""
    return slice(start, None if step < 0 and end < -(2**30) else end, step)


def _is_run(position: IntArray) -> bool:
    return bool((np.diff(position) == 1).all())


def _gather_instead(
    graph: ir.Graph, node: ir.Node, output: ir.Value, axis: int, position: IntArray
) -> ir.Node:
    """A Gather whose result takes the place of `output`."""
    name = str(output.name)
    index = set_initializer(graph, fresh_name(graph, f"{name}.indices"), position.astype(np.int64))
    gather = ir.node("Gather", [node.inputs[0], index], {"axis": axis}, name=f"{name}.gather")
    graph.insert_after(node, gather)
    take_over(graph, output, gather.outputs[0])
    return gather


def _split(
    graph: ir.Graph,
    node: ir.Node,
    axis: int,
    positions: list[IntArray],
    filled: list[int],
    length: int,
) -> None:
    """A Split into what stays, where that is runs that cover everything; else Gathers."""
    whole = np.concatenate(positions) if positions else np.arange(0)
    if len(filled) > 1 and np.array_equal(whole, np.arange(length)):
        sizes = np.array([len(position) for position in positions], np.int64)
        index = set_initializer(graph, fresh_name(graph, f"{label(node)}.split"), sizes)
        old = [node.outputs[k] for k in filled]
        new = ir.node(
            "Split",
            [node.inputs[0], index],
            {"axis": axis},
            num_outputs=len(old),
            name=f"{label(node)}.cut",
        )
        graph.insert_after(node, new)
        for before, after in zip(old, new.outputs, strict=True):
            take_over(graph, before, after)
        return
    for k, position in zip(filled, positions, strict=True):
        _gather_instead(graph, node, node.outputs[k], axis, position)
