"""Convolutions, pools and Resize over [N, C, L] as over [N, C, 1, L], and what stands between them.

A window of k numbers is one of 1 x k. Elementwise operators, concatenations, pads and slices that
read such a result do so in four axes; tensors of three axes remain at the borders alone. The grid
of one that goes is its row's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string, constant
from deploykit.graph.lowering.building import Replacement
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

ROW = 2
"""The axis of length 1."""
WINDOWS = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
MEANS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
ELEMENTWISE = frozenset(
    (
        "Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu",
        "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu",
        "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sub", "Tanh",
    )
)  # fmt: skip
UNSPREAD = frozenset({"BatchNormalization", "Clip"})
"""Whose constants do not broadcast from the last axis."""
LISTS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
"""Attributes of a window with one number per axis, and the one of a row."""


def lift_signals(network: Network) -> Rewritten:
    """Give every window over [N, C, L] a row, and what reads it."""
    if not any(_starts(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    lifting = _Lifting(affine)
    for node in list(model.graph):
        lifting.visit(node)
    grids = dict(network.given.activations)
    for value, row in reversed(list(lifting.rows.items())):
        squeeze, grid = value.producer(), grids.get(str(value.name))
        if grid is not None:
            grids[str(row.name)] = grid
        if squeeze is not None and not value.uses() and not value.is_graph_output():
            model.graph.remove(squeeze, safe=True)
            grids.pop(str(value.name), None)
    given = dataclasses.replace(network.given, activations=grids)
    return affine.finish(dataclasses.replace(network, given=given), model)


def _starts(node: ir.Node) -> bool:
    """Whether a node is a window over [N, C, L]."""
    over = node.op_type in WINDOWS or node.op_type in POOLS or _resizes(node)
    return over and _rank(node.inputs[0]) == 3 and static_shape(node.outputs[0]) is not None


def _resizes(node: ir.Node) -> bool:
    """Whether a node is a Resize by factors or to sizes that are constant, however they are given.

    Sizes that keep the aspect ratio are bounds, and a row has none.
    """
    if node.op_type != "Resize" or attribute_string(node, "mode", "nearest") == "cubic":
        return False
    known = any(constant(value) is not None for value in node.inputs[2:])
    return known and attribute_string(node, "keep_aspect_ratio_policy", "stretch") == "stretch"


def _rank(value: ir.Value | None) -> int:
    return len(static_shape(value) or ())


def _row(shape: Sequence[int]) -> tuple[int, ...]:
    """_row((1, 8, 20)) -> (1, 8, 1, 20)"""
    return (*shape[:ROW], 1, *shape[ROW:])


class _Lifting:
    """rows: by tensor [N, C, L] what stands for it as [N, C, 1, L]."""

    def __init__(self, affine: Affine) -> None:
        self.affine = affine
        self.rows: dict[ir.Value, ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        """Rewrite a node that has a form in four axes and stands behind a window."""
        if static_shape(node.outputs[0]) is None or len(node.outputs) != 1:
            return
        if _resizes(node) and _starts(node):
            self._resize(node)
        elif _starts(node):
            self._window(node)
        elif any(value in self.rows for value in node.inputs if value is not None):
            self._behind(node)

    def _behind(self, node: ir.Node) -> None:
        rank = _rank(node.outputs[0])
        if node.op_type == "Flatten":
            node.replace_input_with(0, self.rows[node.inputs[0]])  # type: ignore[index]
        elif node.op_type in MEANS:
            self._mean(node)
        elif rank == 3 and node.op_type in ELEMENTWISE and self._spreads(node):
            self._replace(node, self._operands(node), dict(node.attributes))
        elif rank == 3 and node.op_type == "Concat":
            axis = attribute_int(node, "axis", 0) % 3
            moved = {"axis": axis + (axis >= ROW)}
            self._replace(node, self._operands(node), moved)
        elif rank == 3 and node.op_type == "Slice":
            self._slice(node)
        elif rank == 3 and node.op_type == "Pad":
            self._pad(node)

    def _spreads(self, node: ir.Node) -> bool:
        """Whether all activations have three axes, and all constants at most as many."""
        ranks = [_rank(value) for value in node.inputs if value and constant(value) is None]
        held = [array.ndim for value in node.inputs if (array := constant(value)) is not None]
        return set(ranks) == {3} and max(held, default=0) <= 3

    def _operands(self, node: ir.Node) -> list[ir.Value | None]:
        new = Replacement(self.affine.graph, node)
        return [
            self._constant(new, node, place, value)
            if constant(value) is not None
            else self._lifted(new, value)
            for place, value in enumerate(node.inputs)
        ]

    def _constant(
        self, new: Replacement, node: ir.Node, place: int, value: ir.Value | None
    ) -> ir.Value | None:
        array = constant(value)
        if array is None or array.ndim < 2 or node.op_type in UNSPREAD:
            return value
        return new.constant(f"row{place}", np.expand_dims(array, array.ndim - 1))

    def _lifted(self, new: Replacement, value: ir.Value | None) -> ir.Value | None:
        shape = static_shape(value)
        if value is None or value in self.rows or shape is None or len(shape) != 3:
            return self.rows.get(value, value) if value is not None else None
        axes = new.constant("row", np.array([ROW], np.int64))
        return new.node("Unsqueeze", [value, axes], f"{value.name}.row", _row(shape))

    def _replace(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]
    ) -> None:
        """The same operator in four axes, and a Squeeze for who reads three."""
        shape, name = static_shape(node.outputs[0]), node.name
        assert shape is not None
        new = Replacement(self.affine.graph, node)
        plain = {
            key: value.value if isinstance(value, ir.Attr) else value
            for key, value in attributes.items()
        }
        result = new.node(node.op_type, inputs, "row", _row(shape), plain)
        axes = new.constant("axes", np.array([ROW], np.int64))
        squeezed = new.node("Squeeze", [result, axes], "signal", shape)
        new.finish(squeezed)
        self.rows[squeezed] = result
        made, squeeze = result.producer(), squeezed.producer()
        assert made is not None and squeeze is not None
        # A node may be called as its output is, which the Squeeze gives from now on.
        made.name, squeeze.name = name or str(result.name), f"{squeezed.name}.signal"

    def _window(self, node: ir.Node) -> None:
        attributes: dict[str, Any] = dict(node.attributes)
        for name, number in LISTS.items():
            if name in attributes:
                attributes[name] = [number, *attribute_ints(node, name, ())]
        if "pads" in attributes:
            begin, end = attribute_ints(node, "pads", (0, 0))
            attributes["pads"] = [0, begin, 0, end]
        new = Replacement(self.affine.graph, node)
        operands = [self._lifted(new, node.inputs[0]), *node.inputs[1:]]
        if node.op_type in {"Conv", "ConvTranspose"} and node.inputs[1] is not None:
            name = str(node.inputs[1].name)
            array, variance = constant(node.inputs[1]), self.affine.spread(name)
            if array is None:
                return
            wide = None if variance is None else np.expand_dims(variance, ROW)
            self.affine.store(name, np.expand_dims(array, ROW).astype(np.float64), wide)
        self._replace(node, operands, attributes)

    def _resize(self, node: ir.Node) -> None:
        """Factors of all axes, or the sizes of all."""
        shape, new = static_shape(node.outputs[0]), Replacement(self.affine.graph, node)
        assert shape is not None
        scales = constant(node.inputs[2])
        operands = [self._lifted_input(node), None]
        if scales is not None and scales.size:
            factors = [1.0, 1.0, 1.0]
            stated = zip(attribute_ints(node, "axes", range(3)), scales.tolist(), strict=True)
            for axis, factor in stated:
                factors[axis % 3] = factor
            operands.append(
                new.constant("scales", np.array([*factors[:ROW], 1.0, *factors[ROW:]], np.float32))
            )
        else:
            operands += [None, new.constant("sizes", np.array(_row(shape), np.int64))]
        kept = {name: value for name, value in node.attributes.items() if name != "axes"}
        self._replace(node, operands, kept)

    def _mean(self, node: ir.Node) -> None:
        """Over L alone."""
        stated = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = attribute_ints(node, "axes", ()) if stated is None else stated.reshape(-1).tolist()
        shape, left = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if shape is None or left is None or [int(axis) % 3 for axis in axes] != [ROW]:
            return
        new, source = Replacement(self.affine.graph, node), self._lifted_input(node)
        pooled = new.node(MEANS[node.op_type], [source], "pooled", (*shape[:2], 1, 1))
        if len(left) == 2:
            new.finish(new.node("Flatten", [pooled], "flat", left, {"axis": 1}))
            return
        held = new.constant("axes", np.array([ROW], np.int64))
        squeezed = new.node("Squeeze", [pooled, held], "signal", left)
        new.finish(squeezed)
        self.rows[squeezed] = pooled

    def _lifted_input(self, node: ir.Node) -> ir.Value | None:
        return self._lifted(Replacement(self.affine.graph, node), node.inputs[0])

    def _slice(self, node: ir.Node) -> None:
        axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        if axes is None:
            return
        new = Replacement(self.affine.graph, node)
        moved = np.array([axis % 3 + (axis % 3 >= ROW) for axis in axes.tolist()], np.int64)
        held = new.constant("axes", moved)
        operands = [self._lifted_input(node), *node.inputs[1:3], held, *node.inputs[4:]]
        self._replace(node, operands, {})

    def _pad(self, node: ir.Node) -> None:
        widths = constant(node.inputs[1])
        plain = len(node.inputs) < 4 or node.inputs[3] is None
        if widths is None or widths.size != 6 or not plain:
            return
        new = Replacement(self.affine.graph, node)
        begins, ends = _row(widths[:3].tolist()), _row(widths[3:].tolist())
        wide = [0 if place == ROW else int(width) for side in (begins, ends)
                for place, width in enumerate(side)]  # fmt: skip
        held = new.constant("widths", np.array(wide, np.int64))
        operands = [self._lifted_input(node), held, *node.inputs[2:3]]
        self._replace(node, operands, dict(node.attributes))
