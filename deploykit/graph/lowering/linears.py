"""Products of a sequence with a constant matrix as a linear over its rows.

    x [..., I] W [I, O]   ->   Reshape [rows, I], Gemm, Reshape [..., O]

A linear with a bias reaches the graph so; one without, or whose bias is zero, as a MatMul.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
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
    new = Replacement(graph, node)
    rows, (inputs, outputs) = prod(source[:-1]), weight.shape
    flat = new.constant("rows.shape", np.array([rows, inputs], np.int64))
    entry = new.node("Reshape", [node.inputs[0], flat], "rows", (rows, inputs))
    held = new.constant("weight", np.ascontiguousarray(weight.T))
    bias = new.constant("bias", np.zeros(outputs))
    linear = new.node("Gemm", [entry, held, bias], "linear", (rows, outputs), {"transB": 1})
    shape = (*source[:-1], outputs)
    back = new.constant("shape", np.array(shape, np.int64))
    new.finish(new.node("Reshape", [linear, back], "sequence", shape))
