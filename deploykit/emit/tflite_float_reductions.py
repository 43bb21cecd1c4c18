"""Float TFLite forms of means, sums, maxima, softmax and normalization."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_order import Order, with_last, without
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Options
from deploykit.spec.arrays import Float32Array

REDUCERS: Mapping[str, str] = {
    "GlobalAveragePool": "MEAN",
    "GlobalMaxPool": "REDUCE_MAX",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMean": "MEAN",
    "ReduceMin": "REDUCE_MIN",
    "ReduceSum": "SUM",
}
"""The TFLite operator by operator type."""

SOFTMAX_OF_ONE_AXIS = 13
"""Opset before which Softmax worked on everything from its axis on, 1 by default."""


def global_pool(node: ir.Node, site: FloatSite) -> None:
    """MEAN or REDUCE_MAX over all pixels; the axes stay, with length 1."""
    place = site.place(node)
    axes = tuple(range(2, len(place.shape)))
    _reduce(REDUCERS[node.op_type], site, place.index, node, place.order, axes, True)


def reduce(node: ir.Node, site: FloatSite) -> None:
    """The row of REDUCERS over the axes where they lie in the file."""
    place = site.place(node)
    rank = len(place.shape)
    axes = read.integers(node, 1, "axes", None)
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            site.put(node.outputs[0], place.index, place.order)
            return
        axes = tuple(range(rank))
    keep = node.attributes.get_int("keepdims", 1) == 1
    axes = tuple(axis % rank for axis in axes)
    _reduce(REDUCERS[node.op_type], site, place.index, node, place.order, axes, keep)


def softmax(node: ir.Node, site: FloatSite) -> None:
    """SOFTMAX or LOG_SOFTMAX over the file's last axis."""
    place = site.place(node)
    rank = len(place.shape)
    joint = site.opset < SOFTMAX_OF_ONE_AXIS
    axis = read.axis(node, rank, 1 if joint else -1)
    if joint and any(size != 1 for size in place.shape[axis + 1 :]):
        raise read.refuse(
            node,
            f"it is one softmax over all axes from {axis} on, as before opset 13",
            "flatten them before it, or convert the network to a newer opset",
        )
    order = with_last(place.order, axis)
    source = site.in_order(place, order)
    result = site.define(node.outputs[0], order)
    code, options = "SOFTMAX", Options("SoftmaxOptions", {"beta": 1.0})
    if node.op_type == "LogSoftmax":
        code, options = "LOG_SOFTMAX", Options("LogSoftmaxOptions")
    site.graph.operator(code, (source,), result, options)


def layer_normalization(node: ir.Node, site: FloatSite) -> None:
    """y = (x - mean) / sqrt(var + eps) * gamma + beta, over the axes from `axis` on."""
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise read.refuse(node, "its mean or deviation is read", "compute them apart")
    rank = len(site.place(node).shape)
    axes = tuple(range(read.axis(node, rank, -1), rank))
    _normalize(node, site, axes, read.parameter(node, 1), read.parameter(node, 2))


def instance_normalization(node: ir.Node, site: FloatSite) -> None:
    """The same over all pixels, gamma and beta per channel."""
    rank = len(site.place(node).shape)
    per_channel = (-1, *(1,) * (rank - 2))
    gamma, beta = (read.parameter(node, position) for position in (1, 2))
    _normalize(
        node,
        site,
        tuple(range(2, rank)),
        None if gamma is None else gamma.reshape(per_channel),
        None if beta is None else beta.reshape(per_channel),
    )


def batch_normalization(node: ir.Node, site: FloatSite) -> None:
    """y = x * a + c per channel, a = gamma / sqrt(var + eps), c = beta - mean * a: MUL and ADD."""
    if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
        raise read.refuse(node, "it normalizes by the batch", "export the network for inference")
    parameters = [read.parameter(node, position) for position in (1, 2, 3, 4)]
    gamma, beta, mean, variance = (np.float64(values) for values in parameters)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    place = site.place(node)
    per_channel = (-1, *(1,) * (len(place.shape) - 2))
    name = read.label(node)
    factor, offset = (
        site.constant(f"{name}/{what}", values.reshape(per_channel).astype(np.float32), place.order)
        for what, values in (("scale", scale), ("offset", beta - mean * scale))
    )
    shape = site.graph.tensors[place.index].shape
    scaled = site.step("MUL", (place.index, factor), f"{name}/scaled", shape, Options("MulOptions"))
    result, activation = site.result(node, place.order)
    options = Options("AddOptions").fusing(activation)
    site.graph.operator("ADD", (scaled, offset), result, options)


def _reduce(
    code: str,
    site: FloatSite,
    source: int,
    node: ir.Node,
    order: Order,
    axes: tuple[int, ...],
    keep: bool,
) -> None:
    result = site.define(node.outputs[0], order if keep else without(order, axes))
    _append_reduction(site, code, source, result, order, axes, keep)


def _append_reduction(
    site: FloatSite,
    code: str,
    source: int,
    result: int,
    order: Order,
    axes: tuple[int, ...],
    keep: bool = True,
) -> None:
    places = np.array(sorted(order.index(axis) for axis in axes))
    inputs = (source, site.graph.integers("axes", places))
    site.graph.operator(code, inputs, result, Options("ReducerOptions", {"keepDims": keep}))


def _normalize(
    node: ir.Node,
    site: FloatSite,
    axes: tuple[int, ...],
    gamma: Float32Array | None,
    beta: Float32Array | None,
) -> None:
    """MEAN, SUB, SQUARE, MEAN, ADD eps, RSQRT, MUL; MUL gamma and ADD beta where they are.

    gamma, beta: broadcasting to the input's shape in the network.
    """
    place = site.place(node)
    order, name = place.order, read.label(node)
    shape = site.graph.tensors[place.index].shape
    narrow = tuple(1 if order[i] in axes else size for i, size in enumerate(shape))
    mean = site.graph.like(place.index, f"{name}/mean", narrow)
    _append_reduction(site, "MEAN", place.index, mean, order, axes)
    centred = site.step("SUB", (place.index, mean), f"{name}/centred", shape, Options("SubOptions"))
    square = site.step("SQUARE", (centred,), f"{name}/square", shape, Options("SquareOptions"))
    variance = site.graph.like(place.index, f"{name}/variance", narrow)
    _append_reduction(site, "MEAN", square, variance, order, axes)
    epsilon = site.number(f"{name}/epsilon", node.attributes.get_float("epsilon", 1e-5))
    safe = site.step("ADD", (variance, epsilon), f"{name}/safe", narrow, Options("AddOptions"))
    inverse = site.step("RSQRT", (safe,), f"{name}/inverse", narrow)
    steps = [("MUL", inverse)]
    if gamma is not None:
        steps.append(("MUL", site.constant(f"{name}/gamma", gamma, order)))
    if beta is not None:
        steps.append(("ADD", site.constant(f"{name}/beta", beta, order)))
    current = centred
    for position, (code, operand) in enumerate(steps):
        options = Options("MulOptions" if code == "MUL" else "AddOptions")
        if position + 1 < len(steps):
            current = site.step(code, (current, operand), f"{name}/{position}", shape, options)
        else:
            result = site.define(node.outputs[0], order)
            site.graph.operator(code, (current, operand), result, options)
