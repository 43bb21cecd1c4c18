"""A float graph of one sample, run on several: their rows lie one sample behind another.

A tensor [s0, s1, ...] of the graph becomes [N * s0, s1, ...], a number [N]. Constants of shapes
leave the first axis open (-1), so that the same nodes take any N. Where an operator works along
axis 0, its inputs are set apart, [N, s0, s1, ...], and its result is put together again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import static_shape

Shape = tuple[int, ...]
OPEN = -1
"""A length that a Reshape infers."""


class Stack:
    """The graph of many samples under construction. samples: N of the shapes that are stated."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = {}
        self._held: dict[ir.Value, ir.Value] = {}
        self._names: set[str] = set()

    def define(self, value: ir.Value) -> ir.Value:
        """The new tensor of all samples' values of one of the graph."""
        made = self._value(str(value.name), self.stacked(shape_of(value)), value.dtype)
        self._held[value] = made
        return made

    def stacked(self, shape: Shape) -> Shape:
        """Shape of all samples' tensors. stacked((4, 8)) -> (4 * N, 8)"""
        return (self.samples * (shape[0] if shape else 1), *shape[1:])

    def varies(self, value: ir.Value | None) -> bool:
        """Whether a value depends on the samples."""
        return value in self._held

    def held(self, value: ir.Value | None) -> ir.Value | None:
        """All samples' values; a constant itself."""
        if value is None:
            return None
        if value in self._held:
            return self._held[value]
        assert value.const_value is not None
        return self.constant(str(value.name), value.const_value.numpy())

    def constant(self, name: str, values: AnyArray) -> ir.Value:
        """A constant; one of the same name and numbers is there once."""
        known = self.constants.get(name)
        if known is not None and np.array_equal(_held_numbers(known), values):
            return known
        called = self._fresh(name)
        tensor = ir.tensor(values, name=called)
        made = ir.Value(
            name=called, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )  # fmt: skip
        self.constants[called] = made
        return made

    def numbers(self, name: str, values: Sequence[int]) -> ir.Value:
        """A constant of int64."""
        return self.constant(name, np.array(values, np.int64))

    def step(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Shape,
        like: ir.Value,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
    ) -> ir.Value:
        """A node in the middle of a composition. shape: what it gives, N included."""
        result = self._value(f"{like.name}/{op_type.lower()}", shape, like.dtype)
        made = ir.node(op_type, inputs, attributes or {}, outputs=[result], name=result.name)
        self.nodes.append(made)
        return result

    def reshaped(self, source: ir.Value, lengths: Sequence[int], shape: Shape) -> ir.Value:
        """The same elements. lengths: as the Reshape states them. shape: for N samples."""
        if static_shape(source) == shape:
            return source
        target = self.numbers(f"{source.name}/shape", lengths)
        return self.step("Reshape", [source, target], shape, source)

    def apart(self, value: ir.Value, rank: int) -> ir.Value:
        """[N, 1, ..., s0, s1, ...] of a value that varies, `rank` axes behind N."""
        shape = shape_of(value)
        wide = (1,) * (rank - len(shape)) + shape
        source = self.held(value)
        assert source is not None
        return self.reshaped(source, (OPEN, *wide), (self.samples, *wide))

    def together(self, apart: ir.Value, value: ir.Value) -> None:
        """Let [N, t0, t1, ...] be the tensor of a value of the graph."""
        shape = shape_of(value)
        made = self.define(value)
        target = self.numbers(f"{made.name}/shape", (OPEN, *shape[1:]))
        self.nodes.append(
            ir.node("Reshape", [apart, target], outputs=[made], name=f"{made.name}/together")
        )

    def copy(self, node: ir.Node, replaced: Mapping[int, ir.Value | None] | None = None) -> None:
        """The node as it is, on the rows of all samples. replaced: inputs by their place."""
        given = replaced or {}
        inputs = [
            given[i] if i in given else self.held(value) for i, value in enumerate(node.inputs)
        ]
        outputs = [self.define(value) for value in node.outputs]
        self._append(node, inputs, outputs, {})

    def lift(
        self,
        node: ir.Node,
        rank: int,
        replaced: Mapping[int, ir.Value] | None = None,
        attributes: Mapping[str, int | Sequence[int]] | None = None,
    ) -> None:
        """The node on [N, ...], `rank` axes behind N; its axes and parameters are the caller's."""
        given = replaced or {}
        inputs = [
            given[i] if i in given else self.apart(value, rank)
            if value is not None and self.varies(value) else self.held(value)
            for i, value in enumerate(node.inputs)
        ]  # fmt: skip
        outputs = [
            self._value(f"{value.name}/apart", (self.samples, *shape_of(value)), value.dtype)
            for value in node.outputs
        ]
        self._append(node, inputs, outputs, attributes or {})
        for made, value in zip(outputs, node.outputs, strict=True):
            self.together(made, value)

    def _append(
        self,
        node: ir.Node,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[ir.Value],
        changed: Mapping[str, int | Sequence[int]],
    ) -> None:
        kept = [one for one in node.attributes.values() if one.name not in changed]
        fresh = ir.convenience.convert_attributes(dict(changed))
        self.nodes.append(
            ir.Node(
                node.domain, node.op_type, inputs, [*kept, *fresh], outputs=outputs, name=node.name
            )
        )

    def _value(self, name: str, shape: Shape, dtype: ir.DataType | None) -> ir.Value:
        kind = ir.TensorType(dtype or ir.DataType.FLOAT)
        return ir.Value(name=self._fresh(name), shape=ir.Shape(shape), type=kind)

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def shape_of(value: ir.Value | None) -> Shape:
    """Sizes of a tensor of one sample, all of which a body knows."""
    shape = static_shape(value)
    if shape is None:
        raise UnsupportedOperatorError(
            f"{'an output' if value is None else value.name}: its shape is not known; export the "
            "network with fixed sizes"
        )
    return shape


def _held_numbers(value: ir.Value) -> AnyArray:
    assert value.const_value is not None
    return value.const_value.numpy()


def numbers_of(value: ir.Value | None) -> AnyArray | None:
    """A constant's values; None where there is none, or where it is computed."""
    return None if value is None or value.const_value is None else value.const_value.numpy()
