"""One spelling of linears: Gemm(transB=1) of a weight [out, in], with bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    constant,
    floats,
    fresh_name,
    readers,
    set_initializer,
    take_over,
)
from deploykit.graph.passes.affine import Affine
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import static_shape


def replace_node(
    graph: ir.Graph, node: ir.Node, op_type: str, inputs: list[ir.Value], attributes: dict[str, int]
) -> ir.Node:
    """Put another operator in a node's place; its output keeps name, shape and readers."""
    old = node.outputs[0]
    new = ir.node(op_type, inputs, attributes, name=node.name)
    new.outputs[0].shape, new.outputs[0].type = old.shape, old.type
    graph.insert_before(node, new)
    name = old.name
    ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.outputs[0].name = name
    return new


def spell_matmul(affine: Affine, node: ir.Node) -> None:
    """MatMul of [N, I] and a constant, with an Add of a bias behind it -> Gemm(transB=1)."""
    source, weight = node.inputs[0], node.inputs[1]
    array = constant(weight)
    if source is None or weight is None or array is None or array.ndim != 2:
        return
    shape = static_shape(source)
    if shape is None or len(shape) != 2:
        return
    graph, output = affine.graph, node.outputs[0]
    inputs = [source, _transposed(affine, str(weight.name))]
    alone = len(output.uses()) == 1 and not output.is_graph_output()
    # A product on a grid is rounded, and saturates, before the bias is added.
    follower = readers(output)[0] if alone and output.name not in affine.rounded else None
    bias = _bias_of(follower, output, array.shape[1])
    if follower is None or bias is None:
        linear = replace_node(graph, node, "Gemm", inputs, {"transB": 1})
        zero_bias(graph, linear, array.shape[1], array.dtype)
        return
    _spread_bias(affine, str(bias.name), array.shape[1])
    replace_node(graph, follower, "Gemm", [*inputs, bias], {"transB": 1})
    graph.remove(node, safe=True)


def _bias_of(follower: ir.Node | None, output: ir.Value, width: int) -> ir.Value | None:
    """The constant [width] that an Add puts on `output`, where that is all it does."""
    if follower is None or follower.op_type != "Add":
        return None
    for candidate in follower.inputs:
        value = constant(candidate)
        if candidate is not output and candidate is not None and value is not None:
            return candidate if value.shape in {(width,), (1, width)} else None
    return None


def _transposed(affine: Affine, name: str) -> ir.Value:
    value, variance = floats(affine.graph.initializers[name]), affine.spread(name)
    assert value is not None
    affine.store(name, value.T, None if variance is None else variance.T)
    return affine.graph.initializers[name]


def spell_gemm(affine: Affine, node: ir.Node) -> None:
    """Gemm with alpha, beta or transB=0 -> transB=1 alone, with a bias [O]."""
    weight = node.inputs[1]
    array = constant(weight)
    if weight is None or array is None or attribute_int(node, "transA", 0):
        return
    outputs = int(array.shape[0] if attribute_int(node, "transB", 0) else array.shape[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not _is_bias(constant(bias), outputs):
        if str(bias.name) in affine.variance:
            return
        _add_behind(affine.graph, node, bias)
        bias = None
    alpha, beta = attribute_float(node, "alpha", 1.0), attribute_float(node, "beta", 1.0)
    if not attribute_int(node, "transB", 0):
        _transposed(affine, str(weight.name))
    if alpha != 1.0:
        affine.scale(str(weight.name), np.asarray(alpha))
    if bias is None:
        zero_bias(affine.graph, node, outputs, array.dtype)
    else:
        if beta != 1.0:
            affine.scale(str(bias.name), np.asarray(beta))
        _spread_bias(affine, str(bias.name), outputs)
    node.attributes.clear()
    node.attributes["transB"] = ir.AttrInt64("transB", 1)


def _add_behind(graph: ir.Graph, node: ir.Node, computed: ir.Value) -> None:
    """Put a C that the network computes, or that differs by sample, into an Add: x W' + beta C."""
    output, beta = node.outputs[0], attribute_float(node, "beta", 1.0)
    name, added = str(output.name), []
    if beta != 1.0:
        factor = np.asarray(beta, output.dtype.numpy() if output.dtype else np.float32)
        held = set_initializer(graph, fresh_name(graph, f"{name}.beta"), factor)
        scaled = ir.Value(
            name=fresh_name(graph, f"{name}.addend"), shape=computed.shape, type=computed.type
        )
        added.append(ir.Node("", "Mul", [computed, held], outputs=[scaled]))
        computed = scaled
    total = ir.Node("", "Add", [output, computed])
    graph.insert_after(node, [*added, total])
    take_over(graph, output, total.outputs[0])
    total.replace_input_with(0, output)  # whose readers the sum's output took over
    output.name = fresh_name(graph, f"{name}.product")
    node.resize_inputs(2)


def _is_bias(value: AnyArray | None, outputs: int) -> bool:
    """Whether C of a Gemm is constant and the same for every sample: [O], [1, O] or one number."""
    if value is None:
        return False
    return value.shape in {(), (1,), (1, 1), (outputs,), (1, outputs)}


def _spread_bias(affine: Affine, name: str, outputs: int) -> None:
    """[1, O] or one number as [O], the variance alike."""
    value, variance = floats(affine.graph.initializers[name]), affine.spread(name)
    assert value is not None
    if value.shape == (outputs,):
        return
    wide = None if variance is None else np.broadcast_to(variance.reshape(-1), (outputs,))
    affine.store(name, np.broadcast_to(value.reshape(-1), (outputs,)), wide)


def zero_bias(graph: ir.Graph, node: ir.Node, outputs: int, dtype: np.dtype[Any]) -> None:
    """Give a layer a bias of zeros, named after its weight."""
    assert node.inputs[1] is not None
    stem = str(node.inputs[1].name).removesuffix(".weight")
    created = set_initializer(
        graph, fresh_name(graph, f"{stem}.bias"), np.zeros(outputs, dtype=dtype)
    )
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, created)
