"""Operators that take tensors apart along an axis, and put them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.joining import Join
from deploykit.graph.channels.labels import Atoms, Entries, Labels, full_axis, other_axes_are_one
from deploykit.graph.channels.operands import cut_operand, reduced
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
    coordinates,
    nothing,
    place,
)
from deploykit.graph.edit import (
    attribute_int,
    attribute_string,
    constant,
    floats,
    fresh_name,
    label,
    set_initializer,
    take_over,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import Float64Array, IntArray
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Concat(Plain):
    """Tensors, and constants of the node's own, one behind the other along the cut axis."""

    node: ir.Node
    axis: int
    sizes: tuple[int, ...]
    parts: tuple[int | None, ...]
    """By operand, which activation it is; None for a constant."""

    @staticmethod
    def of(node: ir.Node) -> Concat | None:
        """None unless every size is known."""
        shapes = [static_shape(value) for value in node.inputs]
        known = [shape for shape in shapes if shape is not None]
        if len(known) != len(shapes):
            return None
        axis = attribute_int(node, "axis", 0) % len(known[0])
        parts: list[int | None] = []
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                if not own_weight(value):
                    return None
                parts.append(None)
            else:
                parts.append(sum(part is not None for part in parts))
        return Concat(node, axis, tuple(shape[axis] for shape in known), tuple(parts))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """One behind the other; a constant has atoms of its own, one per entry.

        None for sequences [N, T, D] that nothing is cut from: what joins them is a token.
        """
        if any(not other_axes_are_one(labels, self.axis) for labels in inputs):
            return None
        if all(labels.size == 1 and labels.ndim == 3 for labels in inputs):
            return None
        shape = [1] * inputs[0].ndim
        pieces = []
        for size, part in zip(self.sizes, self.parts, strict=True):
            if part is None:
                shape[self.axis] = size
                pieces.append(atoms.fresh(shape))
            else:
                pieces.append(full_axis(inputs[part], self.axis, size))
        return [np.concatenate(pieces, axis=self.axis)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """One behind the other."""
        pieces = []
        for value, size, part in zip(self.node.inputs, self.sizes, self.parts, strict=True):
            shape = [1] * inputs[0].ndim
            shape[self.axis] = size
            given = floats(value) if part is None else inputs[part]
            assert given is not None
            pieces.append(reduced(np.array(given), shape))
        return [np.concatenate(pieces, axis=self.axis)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Constants are cut; operands of which nothing stays go."""
        node, target = cutting.node, cutting.outputs[0]
        start, places, operands = 0, [], []
        for value, size, part in zip(node.inputs, self.sizes, self.parts, strict=True):
            assert value is not None
            shape = [1] * target.ndim
            shape[self.axis] = size
            span = np.arange(start, start + size)
            if part is None:
                labels = np.take(target, span, axis=self.axis)
                arranged = arrange(labels, cutting.kept)
                if arranged.size:
                    cut_operand(cutting.affine, value, labels, arranged)
                held = arranged.reshape(-1)
            elif cutting.inputs[part].size == 1 and size > 1:
                held = np.arange(size) if cutting.arranged[part].size else np.arange(0)
            else:
                held = cutting.arranged[part].reshape(-1)
            if len(held):
                places.append(start + held)
                operands.append(value)
            start += size
        whole = [1] * target.ndim
        if not places:
            return [nothing(target)]
        found = np.concatenate(places)
        whole[self.axis] = len(found)
        if len(operands) < len(node.inputs):
            for index, value in enumerate(operands):
                node.replace_input_with(index, value)
            node.resize_inputs(len(operands))
        return [found.reshape(whole)]


@dataclass(frozen=True)
class Stack(Plain):
    """Concat along an axis that is not cut: what is at one channel in all of them is one channel.

    Constant where all hold the same constant.
    """

    node: ir.Node
    joined: Join
    constant_operands: tuple[ir.Value, ...]

    @staticmethod
    def of(node: ir.Node) -> Stack | None:
        """None unless every size is known."""
        shapes = [static_shape(value) for value in activations(node)]
        known = [shape for shape in shapes if shape is not None]
        if len(known) != len(shapes) or not known:
            return None
        axis = attribute_int(node, "axis", 0) % len(known[0])
        fixed = [
            value for value in node.inputs if value is not None and value.const_value is not None
        ]
        if not all(own_weight(value) for value in fixed):
            return None
        narrow = tuple((*shape[:axis], 1, *shape[axis + 1 :]) for shape in known)
        return Stack(node, Join(_if_equal, narrow), tuple(fixed))

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The joined labels."""
        axis = attribute_int(self.node, "axis", 0) % inputs[0].ndim
        if any(labels.shape[axis] > 1 for labels in inputs):
            return None
        return self.joined.label(inputs, atoms)

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """The constant that all agree on."""
        (found,) = self.joined.constants(inputs)
        for value in self.constant_operands:
            held = floats(value)
            assert held is not None
            found = _if_equal(found, reduced(held, found.shape))
        return [found]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Constants are cut."""
        (arranged,) = self.joined.cut(cutting)
        for value in cutting.node.inputs:
            if value is not None and value.const_value is not None and arranged.size:
                cut_operand(cutting.affine, value, cutting.outputs[0], arranged)
        return [arranged]


def _if_equal(*values: Float64Array) -> Float64Array:
    first = values[0]
    for value in values[1:]:
        first = np.where(first == value, first, np.nan)
    return first


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
                _set(graph, node, 1, np.array(int(positions[0][0]), np.int64))
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
                _set(graph, node, index, np.array([number], np.int64))
        elif node.op_type == "Slice":
            _gather_instead(graph, node, node.outputs[0], self.axis, position)
        else:
            _set(graph, node, 1, position)


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


def _set(graph: ir.Graph, node: ir.Node, index: int, array: IntArray) -> None:
    name = fresh_name(graph, f"{node.outputs[0].name}.{index}")
    node.replace_input_with(index, set_initializer(graph, name, np.asarray(array)))


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


@dataclass(frozen=True)
class PadChannels(Plain):
    """Pad by a constant, along the channels too: what it adds is constant channels.

    Along the other axes a constant channel stays one only where it equals the filling. begin, end:
    how many channels it adds; place: of axis 1 among the axes that the node names; elsewhere: the
    other axes that it lengthens; fill: None where it repeats what is there (reflect, edge, wrap).
    """

    node: ir.Node
    channels: int
    begin: int
    end: int
    place: int
    elsewhere: tuple[int, ...]
    fill: float | None

    @staticmethod
    def of(node: ir.Node) -> PadChannels | None:
        """Constant, non-negative widths; along the channels by a constant only."""
        shape = static_shape(node.inputs[0])
        if shape is None or len(shape) < 2 or len(activations(node)) != 1:
            return None
        widths = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        given_axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        if widths is None or np.any(widths < 0):
            return None
        axes = list(range(len(shape))) if given_axes is None else (given_axes % len(shape)).tolist()
        both = np.zeros((2, len(shape)), dtype=np.int64)
        both[:, axes] = widths.reshape(2, -1)
        begin, end = (int(width) for width in both[:, 1])
        value = floats(node.inputs[2]) if len(node.inputs) > 2 else None
        fill = 0.0 if value is None else float(value.reshape(-1)[0])
        repeats = attribute_string(node, "mode", "constant") != "constant"
        if repeats and (begin or end):
            return None
        return PadChannels(
            node,
            shape[1],
            begin,
            end,
            axes.index(1) if 1 in axes else 0,
            tuple(k for k in range(len(shape)) if k != 1 and both[:, k].any()),
            None if repeats else fill,
        )

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """New ones for the channels that it adds. None where it lengthens another cut axis."""
        (given,) = inputs
        if any(given.shape[axis] > 1 for axis in self.elsewhere):
            return None
        if self._adds_channels(given.shape):
            ends = [atoms.fresh((1, count, *given.shape[2:])) for count in (self.begin, self.end)]
            return [np.concatenate([ends[0], given, ends[1]], axis=1)]
        return None if (self.begin or self.end) and given.shape[1] > 1 else [given]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        (given,) = inputs
        adds = self._adds_channels(given.shape)
        if self.fill is None:
            return [given]
        if self.elsewhere or ((self.begin or self.end) and not adds):
            given = np.where(given == self.fill, given, np.nan)
        if not adds:
            return [given]
        ends = [
            np.full((1, count, *given.shape[2:]), self.fill) for count in (self.begin, self.end)
        ]
        return [np.concatenate([ends[0], given, ends[1]], axis=1)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Pads by as many channels as stay of those it adds."""
        if not self._adds_channels(cutting.inputs[0].shape):
            return cutting.arranged[:1]
        found = arrange(cutting.outputs[0], cutting.kept)
        held = found.reshape(-1)
        total = cutting.outputs[0].size
        widths = np.array(constant(self.node.inputs[1]))
        widths[self.place] = int((held < self.begin).sum())
        widths[len(widths) // 2 + self.place] = int((held >= total - self.end).sum())
        if cutting.arranged[0].size == 0 and len(held):
            raise CannotArrangeError
        _set(cutting.affine.graph, cutting.node, 1, widths)
        return [found]

    def _adds_channels(self, cut: Sequence[int]) -> bool:
        """Whether it lengthens axis 1, and that alone is cut (or has one entry)."""
        along_channels = cut[1] == self.channels and int(np.prod(cut)) == cut[1]
        return (self.begin > 0 or self.end > 0) and along_channels
