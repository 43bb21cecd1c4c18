"""Products of a sequence with a constant matrix as a linear over its rows.

x [..., I] W [I, O] + b   ->   Reshape [rows, I], Gemm, Reshape [..., O]

The weight's grid is that of the turned one. A product on a grid is rounded before b is added.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import floats
from deploykit.graph.lowering.building import Replacement, constant_behind, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def lower_linears(network: Network) -> Rewritten:
    """Replace every MatMul of three or more axes with a constant matrix on its right."""
    grids = dict(network.given.weights)

    def replace_one(graph: ir.Graph, node: ir.Node) -> None:
        weight = node.inputs[1]
        made = _replace(graph, node, network.given.activations)
        if weight is not None and weight.name in grids:
            grids[made] = grids.pop(weight.name)

    found = replace_each(network, _fits, replace_one)
    given = replace(found.network.given, weights=grids)
    return replace(found, network=replace(found.network, given=given)) if grids else found


def _fits(node: ir.Node) -> bool:
    if node.op_type != "MatMul":
        return False
    weight, source = floats(node.inputs[1]), static_shape(node.inputs[0])
    constant_left = floats(node.inputs[0]) is not None
    known = weight is not None and weight.ndim == 2 and static_shape(node.outputs[0]) is not None
    return known and not constant_left and source is not None and len(source) > 2


def _replace(graph: ir.Graph, node: ir.Node, rounded: Collection[str]) -> str:
    """The name of the turned weight."""
    weight, source = floats(node.inputs[1]), static_shape(node.inputs[0])
    assert weight is not None and source is not None
    rows, (inputs, outputs) = prod(source[:-1]), weight.shape
    follower, bias = node, np.zeros(outputs)
    if node.outputs[0].name not in rounded:
        follower, bias = constant_behind(node, outputs, (outputs,))
    new = Replacement(graph, follower)
    entry = new.reshaped(node.inputs[0], "rows", (rows, inputs))
    held, shift = new.constant("weight", np.ascontiguousarray(weight.T)), new.constant("bias", bias)
    linear = new.node("Gemm", [entry, held, shift], "linear", (rows, outputs), {"transB": 1})
    new.finish(new.reshaped(linear, "sequence", (*source[:-1], outputs)))
    if follower is not node:
        graph.remove(node, safe=True)
    return str(held.name)
