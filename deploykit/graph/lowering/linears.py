"""Products of a sequence with a constant matrix as a linear over its rows.

x [..., I] W [I, O] + b   ->   Reshape [rows, I], Gemm, Reshape [..., O]
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape


def lower_linears(network: Network) -> Rewritten:
    """Replace every MatMul of three or more axes with a constant matrix on its right."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    if node.op_type != "MatMul":
        return False
    weight, source = floats(node.inputs[1]), static_shape(node.inputs[0])
    constant_left = floats(node.inputs[0]) is not None
    known = weight is not None and weight.ndim == 2 and static_shape(node.outputs[0]) is not None
    return known and not constant_left and source is not None and len(source) > 2


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    weight, source = floats(node.inputs[1]), static_shape(node.inputs[0])
    assert weight is not None and source is not None
    rows, (inputs, outputs) = prod(source[:-1]), weight.shape
    follower, bias = _bias_behind(node, outputs)
    new = Replacement(graph, follower)
    entry = new.reshaped(node.inputs[0], "rows", (rows, inputs))
    held, shift = new.constant("weight", np.ascontiguousarray(weight.T)), new.constant("bias", bias)
    linear = new.node("Gemm", [entry, held, shift], "linear", (rows, outputs), {"transB": 1})
    new.finish(new.reshaped(linear, "sequence", (*source[:-1], outputs)))
    if follower is not node:
        graph.remove(node, safe=True)


def _bias_behind(node: ir.Node, outputs: int) -> tuple[ir.Node, Float64Array]:
    """The last node of a linear, which is an Add of a constant along the last axis, or itself."""
    output, zeros = node.outputs[0], np.zeros(outputs)
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return node, zeros
    follower = uses[0].node
    values = floats(follower.inputs[1 - uses[0].idx])
    along = values is not None and values.size == outputs == values.shape[-1:][0]
    if values is None or not along or values.ndim > len(output.shape or ()):
        return node, zeros
    return follower, np.asarray(values.reshape(-1), np.float64)
