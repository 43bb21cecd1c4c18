"""Bounds behind bounds become one, where no grid asks for both.

    Relu(Relu(x)), Relu(Clip(x, 0, c))                  the inner one
    Clip(Relu(x), a, b) with a <= 0 < b                 Clip(x, 0, b)
    Clip(Clip(x, 0, c), a, b) with a <= 0 < b           Clip(x, 0, min(b, c))

A layer takes in one bound as the saturation of its output. Where a tensor is on a grid that does
not fill int8, or that reaches beyond the inner bound, saturation is not its bound: it keeps its
Clip, and before it the Relu that the layer takes in.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import bypass, constant, set_operand
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network

BOUNDS = frozenset(("Relu", "Clip"))


def merge_bounds(network: Network) -> Rewritten:
    """Rewrite every pair of which nobody else reads the inner tensor. network: canonical."""
    model = network.model.clone()
    grids = network.given.activations
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type in BOUNDS else None
        inner = None if source is None else source.producer()
        if source is None or inner is None or inner.op_type not in BOUNDS:
            continue
        if len(source.uses()) != 1 or source.is_graph_output():
            continue
        (low, high), (inner_low, inner_high) = _bounds(node), _bounds(inner)
        if not (inner_low == 0.0 and low <= 0.0 < high and inner_high > 0.0):
            continue
        output = node.outputs[0]
        grid = grids.get(str(output.name))
        if grid is None and high >= inner_high:
            if not output.is_graph_output():
                bypass(model.graph, node, source)
        elif grid is not None and (inner_high < high or not grid.fills):
            if inner_high < high:
                _bound(model.graph, node, inner_high)
        elif str(source.name) not in grids:
            assert inner.inputs[0] is not None
            _bound(model.graph, node, min(high, inner_high))
            bypass(model.graph, inner, inner.inputs[0])
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _bounds(node: ir.Node) -> tuple[float, float]:
    """Infinite where a Clip states none, NaN where it is known at run time only."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    found = [-math.inf, math.inf]
    for place in (1, 2):
        value = node.inputs[place] if len(node.inputs) > place else None
        if value is not None:
            held = constant(value)
            found[place - 1] = math.nan if held is None else float(held.reshape(()))
    return found[0], found[1]


def _bound(graph: ir.Graph, node: ir.Node, high: float) -> None:
    """Let a Clip bound from 0 to `high`."""
    node.resize_inputs(3)
    kind = node.outputs[0].dtype
    element = np.float32 if kind is None else kind.numpy()
    for place, bound in ((1, 0.0), (2, high)):
        if math.isfinite(bound):
            set_operand(graph, node, place, np.asarray(bound, element))
