"""Gives a network that was made static its open sizes back.

Where a shape was computed from an open size, the static network holds a number. Which numbers those
are is not guessed: the file that came in is run at two sizes, and what differs between the two
depends on the open sizes. Here such numbers are replaced; whether the result computes the same is
for the caller to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploykit.graph.ports import Axis, Port, Shape, set_sizes
from deploykit.spec.arrays import AnyArray


class UnrestorableError(Exception):
    """A number in the static network depends on an open size in a way that no operator can say."""


@dataclass(frozen=True)
class TwoSizes:
    """Shapes by tensor name, graph inputs included: at the static network's sizes, and at others.

    inputs, outputs: as the file declares them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    now: Mapping[str, Shape]
    other: Mapping[str, Shape]

    def moving(self, tensor: str, rank: int) -> tuple[int, ...] | None:
        """Axes of a tensor that follow an open size; None where it is not known at this rank."""
        now, other = self.now.get(tensor), self.other.get(tensor)
        if now is None or other is None or not len(now) == len(other) == rank:
            return None
        return tuple(axis for axis in range(rank) if now[axis] != other[axis])

    def same(self, left: str, right: str, axis: int) -> bool:
        """Whether an axis of two tensors has equal sizes at both sizes."""
        shapes = [by.get(name) for by in (self.now, self.other) for name in (left, right)]
        if any(shape is None or len(shape) <= axis for shape in shapes):
            return False
        sizes = [shape[axis] for shape in shapes if shape is not None]
        return sizes[0] == sizes[1] and sizes[2] == sizes[3]


def restore_symbols(static: onnx.ModelProto, sizes: TwoSizes) -> onnx.ModelProto:
    """A copy of `static` in which the symbols of `sizes` are open again.

    Reshape: an axis that the input has at the same place becomes 0, one other axis -1. Expand: 1
    where the input has the size already. Resize: sizes of unmoved axes only, or scales. A constant
    with a copy per sample: expanded to the batch as it is met.

    Raises UnrestorableError naming the operator whose numbers no such rule covers.
    """
    model = onnx.ModelProto()
    model.CopyFrom(static)
    graph = model.graph
    known = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    del graph.value_info[:]
    editor = _Editor(graph, sizes, known)
    for node in list(graph.node):
        match node.op_type:
            case "Reshape":
                editor.reshape(node)
            case "Expand":
                editor.expand(node)
            case "Resize":
                editor.resize(node)
            case _:
                pass
    editor.spread_constants()
    _declare(graph, sizes)
    return model


def _declare(graph: onnx.GraphProto, sizes: TwoSizes) -> None:
    """Declare inputs and outputs with their open axes."""
    stated = {port.name: port.axes or () for port in (*sizes.inputs, *sizes.outputs)}
    for port in (*graph.input, *graph.output):
        static = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        axes: list[Axis] = list(static)
        for axis in sizes.moving(port.name, len(static)) or ():
            names = stated.get(port.name, ())
            named = names[axis] if axis < len(names) else None
            axes[axis] = named if isinstance(named, str) else f"{port.name}.{axis}"
        set_sizes(port, axes)


class _Editor:
    """Rewrites the shape constants of one graph, which it owns."""

    def __init__(self, graph: onnx.GraphProto, sizes: TwoSizes, known: Mapping[str, Shape]) -> None:
        self.graph, self.sizes, self.known = graph, sizes, known
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def reshape(self, node: onnx.NodeProto) -> None:
        """Replace moving sizes of the target by 0, and one of them by -1."""
        target = self.numbers(node, 1)
        if target is None:
            return
        moving = self.moving(node.output[0], len(target))
        left = [axis for axis in moving if target[axis] > 0]
        if not left:
            return
        copied = []
        if not any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute):
            copied = [axis for axis in left if self.sizes.same(node.input[0], node.output[0], axis)]
        for axis in copied:
            target[axis] = 0
        left = [axis for axis in left if axis not in copied]
        if left and -1 in target:
            taken = target.index(-1)
            size = self.known.get(node.output[0], ())
            if taken in moving or len(size) != len(target) or size[taken] < 1:
                raise UnrestorableError(self.refusal(node))
            target[taken] = size[taken]
        if len(left) > 1:
            raise UnrestorableError(self.refusal(node))
        for axis in left:
            target[axis] = -1
        self.replace(node, 1, np.array(target, np.int64), "shape")

    def expand(self, node: onnx.NodeProto) -> None:
        """Replace moving sizes that the input has already by 1, which keeps them."""
        target = self.numbers(node, 1)
        if target is None:
            return
        for axis in self.moving(node.output[0], len(target)):
            if not self.sizes.same(node.input[0], node.output[0], axis):
                raise UnrestorableError(self.refusal(node))
            target[axis] = 1
        self.replace(node, 1, np.array(target, np.int64), "shape")

    def resize(self, node: onnx.NodeProto) -> None:
        """Leave moving axes out of `sizes` where they pass through, else state their scales."""
        target = self.numbers(node, 3)
        if target is None:
            return
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        source, output = node.input[0], node.output[0]
        rank = len(self.sizes.now.get(output, target))
        axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
        moving = self.moving(output, rank)
        if not moving:
            return
        resized = [axis for axis in axes if not self.sizes.same(source, output, axis)] or axes[-1:]
        if not set(resized) & set(moving):
            kept = [size for axis, size in zip(axes, target, strict=True) if axis in resized]
            self.replace(node, 3, np.array(kept, np.int64), "sizes")
        else:
            self.replace(node, 2, self.scales(node, resized), "scales")
            node.input[3] = ""
        left = [attribute for attribute in node.attribute if attribute.name != "axes"]
        del node.attribute[:]
        node.attribute.extend([*left, helper.make_attribute("axes", resized)])

    def scales(self, node: onnx.NodeProto, axes: Sequence[int]) -> AnyArray:
        """Output over input size of each axis, which has to be one number at both sizes."""
        found = []
        for axis in axes:
            ratios = {
                by[node.output[0]][axis] / by[node.input[0]][axis]
                for by in (self.sizes.now, self.sizes.other)
                if node.input[0] in by
            }
            if len(ratios) != 1:
                raise UnrestorableError(self.refusal(node))
            found.append(ratios.pop())
        return np.array(found, np.float32)

    def spread_constants(self) -> None:
        """Where a constant holds one copy for each sample, keep one and expand it to the batch."""
        for name, tensor in list(self.constants.items()):
            moving = self.sizes.moving(name, len(tensor.dims))
            if not moving:
                continue
            values = numpy_helper.to_array(tensor)
            shape: list[str | int] = list(values.shape)
            for axis in moving:
                one = np.take(values, [0], axis)
                if not np.array_equal(np.broadcast_to(one, values.shape), values):
                    raise UnrestorableError(f"the constant {name!r} depends on an open size")
                values = one
                shape[axis] = self.size_of(name, axis)
            single = self.add(values, f"{name}.single")
            parts = [
                size if isinstance(size, str) else self.add(np.array([size], np.int64), f"{name}.d")
                for size in shape
            ]
            joined = self.free(f"{name}.shape")
            self.graph.initializer.remove(tensor)
            nodes = [
                helper.make_node("Concat", parts, [joined], joined, axis=0),
                helper.make_node("Expand", [single, joined], [name], f"{name}.expand"),
            ]
            for node in reversed(nodes):
                self.graph.node.insert(self.sized, node)

    sized = 0
    """How many nodes at the graph's begin read off open sizes."""

    def size_of(self, name: str, axis: int) -> str:
        """A tensor that holds the open size which an axis of `name` follows."""
        wanted = (self.sizes.now[name][axis], self.sizes.other[name][axis])
        for port in self.sizes.inputs:
            now, other = self.sizes.now[port.name], self.sizes.other[port.name]
            for place, pair in enumerate(zip(now, other, strict=True)):
                if pair == wanted and pair[0] != pair[1]:
                    output = self.free(f"{name}.size")
                    node = helper.make_node(
                        "Shape", [port.name], [output], output, start=place, end=place + 1
                    )
                    self.graph.node.insert(0, node)
                    self.sized += 1
                    return output
        raise UnrestorableError(f"the constant {name!r} depends on an open size")

    def numbers(self, node: onnx.NodeProto, index: int) -> list[int] | None:
        """The integers of a constant input; None where the input is computed or left out."""
        name = node.input[index] if len(node.input) > index else ""
        tensor = self.constants.get(name)
        if tensor is None:
            return None
        return [int(number) for number in numpy_helper.to_array(tensor).reshape(-1)]

    def moving(self, tensor: str, rank: int) -> tuple[int, ...]:
        """The moving axes; of a tensor that the file does not know, none are known to move."""
        return self.sizes.moving(tensor, rank) or ()

    def refusal(self, node: onnx.NodeProto) -> str:
        """Why a node keeps the symbols from being restored."""
        return f"{node.op_type} {node.name or node.output[0]!r} mixes open sizes into its shape"

    def replace(self, node: onnx.NodeProto, index: int, values: AnyArray, what: str) -> None:
        """Give a node a constant of its own."""
        node.input[index] = self.add(values, f"{node.output[0]}.{what}")

    def add(self, values: AnyArray, wanted: str) -> str:
        """A new initializer."""
        name = self.free(wanted)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = self.graph.initializer[-1]
        return name

    def free(self, wanted: str) -> str:
        """`wanted`, or with the first free number behind it."""
        taken = {*self.constants, *(output for node in self.graph.node for output in node.output)}
        taken.update(port.name for port in self.graph.input)
        numbered = (f"{wanted}_{number}" for number in range(1, len(taken) + 2))
        return wanted if wanted not in taken else next(n for n in numbered if n not in taken)
