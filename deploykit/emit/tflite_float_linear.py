"""Float TFLite forms of matrix products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_order import Order, natural, same_elements, with_last
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import Options
from deploykit.emit.tflite_lowering import columns_as_hwc, reshape
from deploykit.spec.arrays import Float32Array


def gemm(node: ir.Node, site: FloatSite) -> None:
    """FULLY_CONNECTED, weight [O, I]; its columns are permuted where its input is H, W, C."""
    read.require_canonical_gemm(node)
    stored = weight = read.weight(node, 2)
    unflattened = site.place(node).unflattened
    if unflattened is not None:
        stored = columns_as_hwc(weight, unflattened)
    source = site.source(node, natural(2))
    result, activation = site.result(node, natural(2))
    inputs = (
        source,
        site.graph.constant(f"{read.label(node)}/weight", stored),
        site.graph.constant(f"{read.label(node)}/bias", read.bias(node, weight.shape[0])),
    )
    options = Options("FullyConnectedOptions").fusing(activation)
    site.graph.operator("FULLY_CONNECTED", inputs, result, options)


def matmul(node: ir.Node, site: FloatSite) -> None:
    """FULLY_CONNECTED over the last axis, with the Add behind it; BATCH_MATMUL of activations."""
    weight = read.term(node, 1)
    if weight is not None and weight.ndim == 2 and len(site.place(node).shape) >= 2:
        _linear(node, site, weight)
        return
    ranks = {len(read.value_shape(value)) for value in node.inputs if value is not None}
    if read.term(node, 0) is not None and min(ranks) > 1:
        ranks = {max(ranks)}
    if len(ranks) != 1 or min(ranks) < 2:
        raise read.refuse(
            node,
            f"its factors have ranks {sorted(ranks)}",
            "use factors of one rank, or a constant second factor [I, O]",
        )
    (rank,) = ranks
    left, left_turned = _factor(node, site, 0, rank)
    right, right_turned = _factor(node, site, 1, rank)
    if (left, left_turned) == (right, right_turned):
        right = _apart(site, right)
    result, _ = site.result(node, natural(rank))
    options = Options("BatchMatMulOptions", {"adjX": left_turned, "adjY": right_turned})
    site.graph.operator("BATCH_MATMUL", (left, right), result, options)


def _apart(site: FloatSite, source: int) -> int:
    """A copy of a tensor: XNNPACK of LiteRT 2.3.0 multiplies a tensor by itself wrongly."""
    tensor = site.graph.tensors[source]
    copy = site.graph.like(source, f"{tensor.name}/copy", tensor.shape)
    reshape(site.graph, source, copy)
    return copy


def _linear(node: ir.Node, site: FloatSite, weight: Float32Array) -> None:
    place = site.place(node)
    rank = len(place.shape)
    order = with_last(place.order, rank - 1)
    source = site.in_order(place, order)
    outputs = weight.shape[1]
    bias = np.zeros(outputs, dtype=np.float32)
    last = node
    follower = read.bias_follower(node, outputs)
    if follower is not None:
        last, bias = follower
        site.absorbed.add(last)
    result, activation = site.result(last, order)
    inputs = (
        source,
        site.graph.constant(f"{read.label(node)}/weight", np.ascontiguousarray(weight.T)),
        site.graph.constant(f"{read.label(node)}/bias", bias),
    )
    options = Options("FullyConnectedOptions", {"keepNumDims": True}).fusing(activation)
    site.graph.operator("FULLY_CONNECTED/keep_num_dims", inputs, result, options)


def _factor(node: ir.Node, site: FloatSite, position: int, rank: int) -> tuple[int, bool]:
    """Index of a factor, and whether the file keeps its matrices transposed."""
    values = read.term(node, position)
    if values is not None:
        wide = values.reshape((1,) * (rank - values.ndim) + values.shape)
        return site.graph.constant(f"{read.label(node)}/{position}", wide), False
    place = site.place(node, position)
    turned = _turned(len(place.shape))
    if _is_turned(place, turned):
        return site.in_order(place, turned), True
    return site.in_order(place, natural(len(place.shape))), False


def _turned(rank: int) -> Order:
    return (*range(rank - 2), rank - 1, rank - 2)


def _is_turned(place: Place, turned: Order) -> bool:
    """Whether the last two axes lie in the file the other way round, so that a flag says it."""
    if same_elements(place.shape, place.order, natural(len(place.shape))):
        return False
    rows, columns = turned[-1], turned[-2]
    return place.order.index(columns) < place.order.index(rows)
