"""The first batch norm of a graph, whose running statistics say what training data looked like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network

MEAN, VARIANCE = 3, 4
"""Inputs of a BatchNormalization."""


@dataclass(frozen=True)
class FirstBatchNorm:
    """before: the graph up to the batch norm's input [N, C, ...]. mean, variance: [C], running."""

    name: str
    before: Network
    mean: Float64Array
    variance: Float64Array


def first_batchnorm(network: Network) -> FirstBatchNorm | None:
    """The first whose statistics were trained; None where there is none.

    A mean of zeros with a variance of ones is what a batch norm begins with.
    """
    for node in network.model.graph:
        if node.op_type != "BatchNormalization" or len(node.inputs) <= VARIANCE:
            continue
        held = [_numbers(node.inputs[place]) for place in (MEAN, VARIANCE)]
        mean, variance = held
        source = node.inputs[0]
        if mean is None or variance is None or source is None or not source.name:
            continue
        if mean.any() or (variance != 1.0).any():
            return FirstBatchNorm(str(node.name), _up_to(network, source.name), mean, variance)
    return None


def _numbers(value: ir.Value | None) -> Float64Array | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy(), dtype=np.float64)


def _up_to(network: Network, name: str) -> Network:
    """A copy that computes one of its tensors alone."""
    model = network.model.clone()
    computed = (value for node in model.graph for value in node.outputs)
    named = {value.name: value for value in (*model.graph.inputs, *computed)}
    model.graph.outputs[:] = [named[name]]
    common.RemoveUnusedNodesPass()(model)
    return Network(model, {})
