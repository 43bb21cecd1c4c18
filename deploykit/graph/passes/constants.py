"""Compute what depends on constants alone, and hold every constant as an initializer."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer

from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    bypass,
    constant,
    floats,
    fresh_name,
    set_initializer,
)
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import IntArray
from deploykit.spec.network import Network


def fold_constants(network: Network) -> Rewritten:
    """Exporters compute zero biases, shapes and axes by small subgraphs; they become initializers.

    All of them: left to itself, the optimizer spares ConstantOfShape and large tensors.
    A product of two parameters (a gate spelled out in the forward) becomes a new initializer, and
    the factors are dropped where nobody else reads them. A transposed parameter (a linear over a
    sequence) keeps its name and variance, both transposed. Parts of a split parameter (attention to
    another sequence) become initializers with their parts of the variance.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    _transpose_parameters(affine)
    _fold(model)
    if _split_parameters(affine):
        _transpose_parameters(affine)
        _fold(model)
    return affine.finish(network, model)


def _fold(model: ir.Model) -> None:
    optimizer.fold_constants(model, should_fold=lambda _: True, output_size_limit=sys.maxsize)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


def _split_parameters(affine: Affine) -> int:
    """How many nodes split a constant; each part is one now."""
    split = [node for node in affine.graph if node.op_type == "Split" and _parts(node)]
    for node in split:
        source, parts = node.inputs[0], _parts(node)
        value = constant(source)
        assert source is not None and value is not None
        axis = attribute_int(node, "axis", 0)
        spread = affine.spread(str(source.name))
        for place, (output, part) in enumerate(zip(node.outputs, parts, strict=True)):
            name = fresh_name(affine.graph, f"{source.name}.{place}")
            made = set_initializer(affine.graph, name, value.take(part, axis))
            if spread is not None:
                affine.variance[name] = spread.take(part, axis).astype(np.float32)
            ir.convenience.replace_all_uses_with(output, made)
        affine.graph.remove(node, safe=True)
    return len(split)


def _parts(node: ir.Node) -> list[IntArray]:
    """Which places of the axis each output of a Split takes; none where it splits no constant."""
    value = constant(node.inputs[0])
    if value is None or any(output.is_graph_output() for output in node.outputs):
        return []
    length, count = value.shape[attribute_int(node, "axis", 0)], len(node.outputs)
    sizes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:
        sizes = np.full(count, -(-length // count))
    return np.split(np.arange(length), np.cumsum(sizes)[:-1])


def _transpose_parameters(affine: Affine) -> None:
    for node in list(affine.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        name = "" if source is None else str(source.name)
        spread = affine.spread(name)
        if source is None or spread is None or not own_weight(source):
            continue
        value = floats(source)
        if value is None or node.outputs[0].is_graph_output():
            continue
        order = attribute_ints(node, "perm", tuple(reversed(range(value.ndim))))
        affine.store(name, value.transpose(order), spread.transpose(order))
        bypass(affine.graph, node, source)
