"""Fold inference-mode batch normalization into the convolution or linear before it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    bypass,
    constant,
    floats,
    label,
    readers,
)
from deploykit.graph.passes.affine import Affine, scale_producer
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network


def fold_batchnorm(network: Network) -> Rewritten:
    """Fold y = g*(W*x + b - m)/s + t, with s = sqrt(var + eps), into W and b.

    W' = W*g/s            [out, in/groups, kh, kw], scaled along axis 0
    b' = (b - m)*g/s + t  [out]
    variance of W' = variance of W * (g/s)^2; of b' likewise.
    Source: Jacob et al. 2018, section 3.2; variances by Var[a*w] = a^2 Var[w].

    A batch norm whose input has other readers, or no convolution or linear before it, stays; so
    does one that normalizes by the batch, or by statistics that are computed at run time.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), rounded=network.given.activations.keys())
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or not is_inference(node):
            continue
        source = node.inputs[0]
        producer = source.producer() if source is not None else None
        if source is None or producer is None or len(readers(source)) != 1:
            continue
        if source.is_graph_output():
            continue
        scale, offset = batchnorm_as_affine(node)
        if scale_producer(affine, producer, scale, offset):
            bypass(model.graph, node, source)
    return affine.finish(network, model)


def is_inference(node: ir.Node) -> bool:
    """Whether a batch norm is a fixed affine map: stored statistics, all parameters constant."""
    constants = all(constant(value) is not None for value in node.inputs[1:5])
    return constants and attribute_int(node, "training_mode", 0) == 0


def batchnorm_as_affine(node: ir.Node) -> tuple[Float64Array, Float64Array]:
    """The batch norm as y = scale * x + offset, both [C], in float64.

    Raises ValueError where its parameters are not constants.
    """
    parameters = [floats(value) for value in node.inputs[1:5]]
    if any(parameter is None for parameter in parameters):
        raise ValueError(f"{label(node)} has parameters that are computed at run time")
    gamma, beta, mean, variance = (np.asarray(parameter) for parameter in parameters)
    scale = gamma / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    return scale, beta - mean * scale
