"""y = s * x + t per channel, which no layer could take in, as a depthwise 1x1 convolution.

One weight per channel is exact in int8, so that a batch norm before its convolution (DenseNet)
costs one rounding, and an activation behind it is fused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import readers
from deploykit.graph.lowering.building import Replacement
from deploykit.graph.passes.affine import Affine
from deploykit.graph.passes.batchnorm import batchnorm_as_affine, is_inference
from deploykit.graph.passes.scales import per_channel
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape


@dataclass(frozen=True)
class _Affine:
    """source: x. scale, offset: [C]. inner: a product that the sum behind it takes in."""

    source: ir.Value
    scale: Float64Array
    offset: Float64Array
    inner: ir.Node | None = None


def lower_channel_affines(network: Network) -> Rewritten:
    """Replace batch norms and constants per channel on [N, C, H, W].

    A single number for all channels stays: sums and products with it have forms of their own.
    """
    if not any(_affine(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    gone: set[ir.Node] = set()
    for node in reversed(list(model.graph)):
        found = None if node in gone else _affine(node)
        if found is None:
            continue
        _replace(model.graph, node, found)
        if found.inner is not None:
            gone.add(found.inner)
            model.graph.remove(found.inner, safe=True)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _affine(node: ir.Node) -> _Affine | None:
    shape = static_shape(node.outputs[0])
    if shape is None or len(shape) != 4:
        return None
    if node.op_type == "BatchNormalization":
        source = node.inputs[0]
        if source is None or not is_inference(node):
            return None
        return _Affine(source, *batchnorm_as_affine(node))
    found = per_channel(node)
    if found is None:
        return None
    source, scale, offset = found
    product = source.producer()
    before = None if product is None else per_channel(product)
    alone = not source.is_graph_output() and readers(source) == (node,)
    if before is not None and product is not None and alone and not np.any(before[2]):
        return _Affine(before[0], scale * before[1], offset, product)
    if np.ptp(scale) == 0.0 and np.ptp(offset) == 0.0:
        return None
    return _Affine(source, scale, offset)


def _replace(graph: ir.Graph, node: ir.Node, found: _Affine) -> None:
    shape = static_shape(node.outputs[0])
    assert shape is not None
    channels, new = shape[1], Replacement(graph, node)
    weight = new.constant("weight", np.broadcast_to(found.scale, (channels,))[:, None, None, None])
    bias = new.constant("bias", np.broadcast_to(found.offset, (channels,)))
    attributes = {
        "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1],
        "group": channels,
    }  # fmt: skip
    new.finish(new.node("Conv", [found.source, weight, bias], "affine", shape, attributes))
