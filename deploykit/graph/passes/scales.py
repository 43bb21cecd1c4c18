"""Fold per-channel constants (gates, spelled-out normalization) into a neighbouring weight."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import bypass, constant
from deploykit.graph.passes.affine import Affine, scale_producer
from deploykit.graph.passes.commuting import keep_factor, scale_before, scale_behind
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape


def fold_channel_scales(network: Network) -> Rewritten:
    """Fold y = x * s, x / s, x + t, x - t with constants per channel into a convolution or linear.

    Backward into the producer where the producer has no other reader: W' = W*s along its outputs.
    Else, for a product, forward into every reader: W' = W*s along their inputs. Both are exact
    under zero padding, since a scale leaves a padded zero at zero. Else, for a product, through
    activations and pools that it commutes with (`commuting`).
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), rounded=network.given.activations.keys())
    for node in list(model.graph):
        found = per_channel(node)
        if found is None:
            continue
        source, scale, offset = found
        producer = source.producer()
        alone = len(source.uses()) == 1 and not source.is_graph_output()
        folded = producer is not None and alone and scale_producer(affine, producer, scale, offset)
        if not folded and not np.any(offset):
            folded = scale_behind(affine, node.outputs[0], scale)
        if not folded and not np.any(offset):
            rest = scale_before(affine, source, scale)
            folded = bool((rest == 1.0).all()) or scale_behind(affine, node.outputs[0], rest)
            if not folded and rest is not scale:
                keep_factor(model.graph, node, source, rest)
        if folded:
            bypass(model.graph, node, source)
    return affine.finish(network, model)


def per_channel(node: ir.Node) -> tuple[ir.Value, Float64Array, Float64Array] | None:
    """(x, scale [C], offset [C]) where the node is x op constant along axis 1, else None."""
    if node.op_type not in {"Mul", "Div", "Add", "Sub"} or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if left is None or right is None:
        return None
    commutes = node.op_type in {"Mul", "Add"}
    if constant(right) is not None:
        source, value = left, constant(right)
    elif commutes and constant(left) is not None:
        source, value = right, constant(left)
    else:
        return None
    shape = static_shape(source)
    if shape is None or len(shape) < 2 or value is None:
        return None
    vector = channel_vector(value.astype(np.float64), shape)
    if vector is None:
        return None
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    match node.op_type:
        case "Mul":
            return source, vector, zeros
        case "Div":
            return None if np.any(vector == 0) else (source, 1.0 / vector, zeros)
        case "Add":
            return source, ones, vector
        case _:
            return source, ones, -vector


def channel_vector(value: Float64Array, shape: tuple[int, ...]) -> Float64Array | None:
    """`value`, which broadcasts against a tensor of `shape`, as one number per channel [C].

    None where it differs along another axis than 1 (or would enlarge the tensor).
    """
    if value.ndim > len(shape):
        return None
    aligned = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    others = [size for axis, size in enumerate(aligned.shape) if axis != 1]
    if any(size != 1 for size in others) or aligned.shape[1] not in (1, shape[1]):
        return None
    return np.array(np.broadcast_to(aligned.reshape(-1), (shape[1],)), dtype=np.float64)
