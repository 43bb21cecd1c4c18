"""An average over windows as a depthwise convolution of equal weights.

    mean over k*k pixels = sum of w * x, every w = 1 / (k*k)

Its weights are exact in int8 (127 steps of 1 / (127 k*k)), and it requantizes like a convolution,
on which the runtimes agree; AveragePool itself they round differently, and run slowly in int8.
Where padding does not count, a product with k*k / (numbers inside) follows, one per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import IntArray
from deploykit.spec.network import Network, static_shape


def lower_average_pools(network: Network) -> Rewritten:
    """Replace every AveragePool over [N, C, H, W] whose windows all hold numbers."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    shape = static_shape(node.inputs[0]) if node.inputs else None
    if node.op_type != "AveragePool" or shape is None or len(shape) != 4:
        return False
    if static_shape(node.outputs[0]) is None:
        return False
    if attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    counted = attribute_int(node, "count_include_pad", 0) == 1
    inside, beyond = _counts(node), any(one.beyond for one in _axes(node))
    # What ceil_mode adds beyond counted padding is counted by some runtimes and not by others.
    return bool(inside.min() > 0) and not (counted and beyond)


@dataclass(frozen=True)
class _Axis:
    """counts: numbers under each window. end: padding that windows reach, beyond: unstated."""

    counts: IntArray
    end: int
    beyond: int


def _axes(node: ir.Node) -> tuple[_Axis, _Axis]:
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert shape is not None and result is not None
    kernel, pads = attribute_ints(node, "kernel_shape", ()), attribute_ints(node, "pads", (0,) * 4)
    strides = attribute_ints(node, "strides", (1, 1))
    dilations = attribute_ints(node, "dilations", (1, 1))

    def along(axis: int) -> _Axis:
        starts = np.arange(result[2 + axis]) * strides[axis] - pads[axis]
        places = starts[:, None] + np.arange(kernel[axis]) * dilations[axis]
        counts = ((places >= 0) & (places < shape[2 + axis])).sum(axis=1)
        reached = max(int(places.max()) + 1 - shape[2 + axis], 0)
        return _Axis(counts, max(reached, pads[axis + 2]), max(reached - pads[axis + 2], 0))

    return along(0), along(1)


def _counts(node: ir.Node) -> IntArray:
    """[H', W']: how many numbers of the input each window holds."""
    rows, columns = _axes(node)
    return np.outer(rows.counts, columns.counts)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert shape is not None and result is not None
    channels, kernel = shape[1], attribute_ints(node, "kernel_shape", ())
    new, (rows, columns) = Replacement(graph, node), _axes(node)
    top, left, *_ = attribute_ints(node, "pads", (0, 0, 0, 0))
    weight = new.constant("weight", np.full((channels, 1, *kernel), 1.0 / np.prod(kernel)))
    bias = new.constant("bias", np.zeros(channels))
    attributes = {
        "kernel_shape": list(kernel),
        "strides": list(attribute_ints(node, "strides", (1, 1))),
        "pads": [top, left, rows.end, columns.end],
        "dilations": list(attribute_ints(node, "dilations", (1, 1))),
        "group": channels,
    }
    mean = new.node("Conv", [node.inputs[0], weight, bias], "mean", result, attributes)
    counts = _counts(node)
    if attribute_int(node, "count_include_pad", 0) == 0 and counts.min() < np.prod(kernel):
        share = new.constant("share", np.prod(kernel) / counts[None, None])
        mean = new.node("Mul", [mean, share], "inside", result)
    new.finish(mean)
