"""The float graph with rows of linears' inputs rounded to int8, as runtimes do while they run."""

from __future__ import annotations

from enum import Enum
from typing import assert_never

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network

LEAST = 1e-30
"""Scale of a row of zeros."""
AXES_AS_INPUT = 18
"""Opset from which reductions have their axes as an input."""


class Rows(Enum):
    """Where a row's 8 bits lie.

    ABOUT_ZERO: x' = s rint(x / s), s = max |x| / 127, as MatMulNBits rounds each block of a row.
    BETWEEN_ENDS: s = (max - min) / 255 with zero among them, z = rint(-128 - min / s),
    x' = s (clip(rint(x / s) + z, -128, 127) - z), as XNNPACK rounds a row.
    """

    ABOUT_ZERO = "about zero"
    BETWEEN_ENDS = "between its ends"


def with_rounded_rows(network: Network, names: tuple[str, ...], rows: Rows) -> Network:
    """The same graph, the inputs of some linears rounded along their last axis."""
    model = network.model.clone()
    opset = model.opset_imports.get("", AXES_AS_INPUT)
    for node in list(model.graph):
        if node.name in names and node.inputs[0] is not None:
            steps = _Steps(model.graph, str(node.name), opset)
            rounded = steps.rounded(node.inputs[0], rows)
            model.graph.insert_before(node, steps.made)
            node.replace_input_with(0, rounded)
    return network.rewritten(model)


class _Steps:
    """The nodes in front of one linear."""

    def __init__(self, graph: ir.Graph, name: str, opset: int) -> None:
        self.made: list[ir.Node] = []
        self._graph, self._name, self._opset = graph, name, opset

    def rounded(self, source: ir.Value, rows: Rows) -> ir.Value:
        least = self._number("least", LEAST)
        match rows:
            case Rows.ABOUT_ZERO:
                largest = self._ends("ReduceMax", self._add("Abs", source))
                step = self._add("Mul", largest, self._number("steps", 1 / 127))
                step = self._add("Max", step, least)
                return self._add("Mul", self._add("Round", self._add("Div", source, step)), step)
            case Rows.BETWEEN_ENDS:
                zero = self._number("zero", 0.0)
                low = self._add("Min", self._ends("ReduceMin", source), zero)
                high = self._add("Max", self._ends("ReduceMax", source), zero)
                spread = self._add("Sub", high, low)
                step = self._add("Mul", spread, self._number("steps", 1 / 255))
                step = self._add("Max", step, least)
                lowest = self._number("lowest", -128.0)
                point = self._add("Sub", lowest, self._add("Div", low, step))
                point = self._add("Round", point)
                places = self._add("Round", self._add("Div", source, step))
                shifted = self._add("Add", places, point)
                held = self._add("Clip", shifted, lowest, self._number("highest", 127.0))
                return self._add("Mul", self._add("Sub", held, point), step)
            case _:
                assert_never(rows)

    def _ends(self, operator: str, source: ir.Value) -> ir.Value:
        if self._opset >= AXES_AS_INPUT:
            return self._add(operator, source, self._constant("axes", np.array([-1], np.int64)))
        return self._add(operator, source, attributes=[ir.AttrInt64s("axes", [-1])])

    def _add(
        self, operator: str, *inputs: ir.Value, attributes: list[ir.Attr] | None = None
    ) -> ir.Value:
        name = f"{self._name}.{operator}.{len(self.made)}"
        added = ir.Node("", operator, inputs, attributes or (), name=name)
        added.outputs[0].name = f"{name}.out"
        self.made.append(added)
        return added.outputs[0]

    def _number(self, what: str, value: float) -> ir.Value:
        return self._constant(what, np.array(value, np.float32))

    def _constant(self, what: str, values: AnyArray) -> ir.Value:
        name = f"{self._name}.rows.{what}"
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        tensor = ir.tensor(values, name=name)
        made = ir.Value(name=name, const_value=tensor)
        made.shape, made.type = ir.Shape(values.shape), ir.TensorType(tensor.dtype)
        self._graph.register_initializer(made)
        return made
