"""Compute what depends on constants alone, and hold every constant as an initializer."""

from __future__ import annotations

import sys

import onnx_ir.passes.common as common
from onnxscript import optimizer

from deploykit.graph.edit import attribute_ints, bypass, floats
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network


def fold_constants(network: Network) -> Rewritten:
    """Exporters compute zero biases, shapes and axes by small subgraphs; they become initializers.

    All of them: left to itself, the optimizer spares ConstantOfShape and large tensors.
    A product of two parameters (a gate spelled out in the forward) becomes a new initializer, and
    the factors are dropped where nobody else reads them. A transposed parameter (a linear over a
    sequence) keeps its name and variance, both transposed.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    _transpose_parameters(affine)
    optimizer.fold_constants(model, should_fold=lambda _: True, output_size_limit=sys.maxsize)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return affine.finish(network, model)


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
