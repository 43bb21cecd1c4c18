"""Products with a constant matrix on the left, as a convolution or as a product from the right.

    W [O, I] x [N, I, L] + b       a convolution of window 1 over L: I are its channels
    W [O, I] x [..., I, L] + b     (x' W' + b')', ' the last two axes turned

b: a constant by row, [O, 1]. A matrix with leading axes of length 1 is one too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant, floats
from deploykit.graph.lowering.building import Replacement, constant_behind, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape

SIGNAL = 3
"""Axes of [N, I, L]."""


def lower_left_products(network: Network) -> Rewritten:
    """Replace every MatMul of a constant matrix and an activation of two or more axes."""
    return replace_each(network, lambda node: _matrix(node) is not None, _replace)


def _matrix(node: ir.Node) -> Float64Array | None:
    """[O, I], where a node is such a product."""
    if node.op_type != "MatMul" or constant(node.inputs[1]) is not None:
        return None
    held, shape = floats(node.inputs[0]), static_shape(node.inputs[1])
    if held is None or shape is None or not 2 <= held.ndim <= len(shape):
        return None
    single = held.shape[:-2] == (1,) * (held.ndim - 2)
    known = static_shape(node.outputs[0]) is not None
    return held.reshape(held.shape[-2:]) if single and known and len(shape) >= 2 else None


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    matrix, source = _matrix(node), static_shape(node.inputs[1])
    assert matrix is not None and source is not None
    outputs, length = matrix.shape[0], source[-1]
    last, bias = constant_behind(node, outputs, (outputs, 1))
    new, rank = Replacement(graph, last), len(source)
    shape = (*source[:-2], outputs, length)
    if rank == SIGNAL:
        weight = new.constant("weight", matrix[:, :, None])
        operands = [node.inputs[1], weight, new.constant("bias", bias)]
        window = {
            "kernel_shape": [1], "strides": [1], "dilations": [1], "pads": [0, 0], "group": 1
        }  # fmt: skip
        new.finish(new.node("Conv", operands, "product", shape, window))
    else:
        turn = {"perm": [*range(rank - 2), rank - 1, rank - 2]}
        turned, given = (*source[:-2], length, source[-2]), (*source[:-2], length, outputs)
        entry = new.node("Transpose", [node.inputs[1]], "turned", turned, turn)
        shift = new.constant("bias", bias)
        if rank == 2:
            weight = new.constant("weight", matrix)
            product = new.node("Gemm", [entry, weight, shift], "linear", given, {"transB": 1})
        else:
            weight = new.constant("weight", np.ascontiguousarray(matrix.T))
            plain = new.node("MatMul", [entry, weight], "product", given)
            product = new.node("Add", [plain, shift], "shifted", given)
        new.finish(new.node("Transpose", [product], "back", shape, turn))
    if last is not node:
        graph.remove(node, safe=True)
