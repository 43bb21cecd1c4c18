"""The real numbers behind integer tensors, computed by float operators.

Between a QuantizeLinear and a DequantizeLinear of the same scale a graph may move integers (a
MaxPool, a Reshape, a Clip). Moving real numbers instead gives the real numbers of the result:

    DequantizeLinear(move(q)) = move(DequantizeLinear(q))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import attribute_string, fresh_name, label, set_initializer
from deploykit.graph.quantized.constants import Constants
from deploykit.graph.quantized.parameters import (
    RANGES,
    Parameters,
    activation_grid,
    element_of,
    parameters_of,
)
from deploykit.graph.quantized.stored import Stored, stored_integers
from deploykit.spec.given import ActivationGrid

FIRST, ALL = (0,), None
MOVING: Mapping[str, tuple[int, ...] | None] = {
    "Clip": (0, 1, 2), "Concat": ALL, "DepthToSpace": FIRST, "Expand": FIRST, "Flatten": FIRST,
    "Gather": FIRST, "Identity": FIRST, "Max": ALL, "MaxPool": FIRST, "Min": ALL, "Pad": (0, 2),
    "Reshape": FIRST, "Resize": FIRST, "Slice": FIRST, "SpaceToDepth": FIRST, "Split": FIRST,
    "Squeeze": FIRST, "Tile": FIRST, "Transpose": FIRST, "Unsqueeze": FIRST,
}  # fmt: skip
"""Operators that move or compare integers: which of their inputs hold these, None for all."""
UINT8 = RANGES["uint8"]
"""The element type of which deploykit's files turn the bits."""


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear of `source` and what reads its integers as real numbers: `value`."""

    source: ir.Value
    grid: ActivationGrid
    value: ir.Value


@dataclass
class Twins:
    """Finds or makes the float tensor of each integer tensor, in the graph that it is given.

    readers: how often each tensor is read in the graph as it came. stored: by float initializer,
    the integers that it was, and in which steps. rows: tensors taken from one, on its grid.
    """

    graph: ir.Graph
    constants: Constants
    readers: Mapping[ir.Value, int]
    pairs: list[Pair] = field(default_factory=list)
    stored: dict[ir.Value, tuple[Stored, Parameters]] = field(default_factory=dict)
    rows: dict[ir.Value, ActivationGrid] = field(default_factory=dict)
    made: dict[tuple[object, ...], ir.Value] = field(default_factory=dict)

    def real(self, value: ir.Value, read_as: Parameters) -> ir.Value:
        """The real numbers of an integer tensor.

        Raises GraphError where something computes with the integers, or writes them in other steps.
        """
        key = (value, *read_as.key())
        if key not in self.made:
            self.made[key] = self._found(value, read_as)
        return self.made[key]

    def _found(self, value: ir.Value, read_as: Parameters) -> ir.Value:
        held = stored_integers(value, self.constants)
        if held is not None:
            return self._constant(value, held, read_as)
        node = value.producer()
        if node is None:
            raise GraphError(
                f"the input {value.name!r} is of integers that more than a DequantizeLinear of "
                "one scale reads; export the network with float inputs"
            )
        rounded = self._rounded(node, read_as)
        if rounded is not None:
            return self._pair(*rounded)
        if node.op_type == "BitwiseNot":
            return self._mirrored(node, read_as)
        if node.op_type not in MOVING:
            raise GraphError(
                f"{node.op_type} {label(node)!r} computes with integers, and no float operator is "
                "known for it; give the file with QuantizeLinear and DequantizeLinear (QDQ) around "
                "float operators"
            )
        return self._moved(node, value, read_as)

    def _constant(self, value: ir.Value, held: Stored, read_as: Parameters) -> ir.Value:
        name = fresh_name(self.graph, f"{value.name}.real")
        made = set_initializer(self.graph, name, read_as.real(held.values))
        self.stored[made] = held, read_as
        return made

    def _rounded(self, node: ir.Node, read_as: Parameters) -> tuple[ir.Node, ActivationGrid] | None:
        """A QuantizeLinear and its grid, with any Clip of the integers; None of other nodes."""
        lows: list[int] = []
        highs: list[int] = []
        while node.op_type == "Clip":
            for place, ends in ((1, lows), (2, highs)):
                value = node.inputs[place] if len(node.inputs) > place else None
                bound = self.constants.value(value)
                if bound is not None:
                    ends.append(int(bound.reshape(())))
            source = node.inputs[0]
            maker = None if source is None else source.producer()
            if source is None or maker is None or self.readers[source] > 1:
                return None
            node = maker
        if node.op_type != "QuantizeLinear":
            return None
        written = parameters_of(node, self.constants)
        if not written.alike(read_as):
            raise GraphError(
                f"{node.op_type} {label(node)!r} makes integers in other steps than its "
                "DequantizeLinear reads them in; export the network again"
            )
        grid = activation_grid(node, written, element_of(node, self.constants), lows, highs)
        return node, grid

    def _pair(self, node: ir.Node, grid: ActivationGrid) -> ir.Value:
        source = node.inputs[0]
        assert source is not None
        for pair in self.pairs:
            # Numbers of a grid are on the same grid already.
            if source in (pair.source, pair.value) and pair.grid == grid:
                return pair.value
        same = self._insert(node, "Identity", [source], {})
        same.outputs[0].name = fresh_name(self.graph, f"{source.name}.on_grid")
        self.pairs.append(Pair(source, grid, same.outputs[0]))
        return same.outputs[0]

    def _mirrored(self, node: ir.Node, read_as: Parameters) -> ir.Value:
        """(255 - q) - z = -(q - (255 - z)) of uint8, and 255 - q is q with every bit turned."""
        source = node.inputs[0]
        assert source is not None
        turned = replace(read_as, zero=UINT8[1] - read_as.zero)
        return self._insert(node, "Neg", [self.real(source, turned)], {}).outputs[0]

    def _moved(self, node: ir.Node, value: ir.Value, read_as: Parameters) -> ir.Value:
        inputs = list(node.inputs)
        if node.op_type == "Pad" and attribute_string(node, "mode", "constant") == "constant":
            inputs += [None] * (3 - len(inputs))
            inputs[2] = inputs[2] or set_initializer(
                self.graph, fresh_name(self.graph, f"{label(node)}.zero"), np.zeros((), np.uint8)
            )
        for place in self._held(node, len(inputs)):
            one = inputs[place]
            inputs[place] = None if one is None else self.real(one, read_as)
        moved = self._insert(node, node.op_type, inputs, node.attributes)
        for place, output in enumerate(node.outputs):
            self.made[(output, *read_as.key())] = moved.outputs[place]
        if node.op_type == "Gather" and inputs[0] in self.stored:
            self.rows[moved.outputs[0]] = self._row_grid(node, *self.stored[inputs[0]])
        return self.made[(value, *read_as.key())]

    def _row_grid(self, node: ir.Node, held: Stored, read_as: Parameters) -> ActivationGrid:
        """Of rows of a stored table, which are as they are stored."""
        return activation_grid(node, read_as, held.element, [held.low], [held.high])

    def _held(self, node: ir.Node, count: int) -> Iterator[int]:
        places = MOVING[node.op_type]
        yield from range(count) if places is None else (one for one in places if one < count)

    def _insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: Mapping[str, ir.Attr],
    ) -> ir.Node:
        new = ir.Node(
            "", op_type, inputs, list(attributes.values()), num_outputs=len(before.outputs)
        )
        for output, old in zip(new.outputs, before.outputs, strict=True):
            output.name = fresh_name(self.graph, f"{old.name}.real")
        self.graph.insert_before(before, new)
        return new
