"""An average over windows as a depthwise convolution of equal weights.

    mean over k*k pixels = sum of w * x, every w = 1 / (k*k)

Its weights are exact in int8 (127 steps of 1 / (127 k*k)), and it requantizes like a convolution,
on which the runtimes agree; AveragePool itself they round differently, and run slowly in int8.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def lower_average_pools(network: Network) -> Rewritten:
    """Replace every AveragePool over [N, C, H, W] whose windows all hold k*k numbers."""
    return replace_each(network, _is_uniform, _replace)


def _is_uniform(node: ir.Node) -> bool:
    """Whether every window is divided by its full size: padding counts, or there is none."""
    shape, output = static_shape(node.inputs[0]) if node.inputs else None, node.outputs[0]
    if node.op_type != "AveragePool" or shape is None or len(shape) != 4:
        return False
    if static_shape(output) is None or attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    pads = attribute_ints(node, "pads", (0, 0, 0, 0))
    counted = attribute_int(node, "count_include_pad", 0) == 1 or not any(pads)
    return counted and not attribute_int(node, "ceil_mode", 0)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert shape is not None and result is not None
    channels, kernel = shape[1], attribute_ints(node, "kernel_shape", ())
    new = Replacement(graph, node)
    weight = new.constant("weight", np.full((channels, 1, *kernel), 1.0 / np.prod(kernel)))
    bias = new.constant("bias", np.zeros(channels))
    attributes = {
        "kernel_shape": list(kernel),
        "strides": list(attribute_ints(node, "strides", (1, 1))),
        "pads": list(attribute_ints(node, "pads", (0, 0, 0, 0))),
        "dilations": list(attribute_ints(node, "dilations", (1, 1))),
        "group": channels,
    }
    new.finish(new.node("Conv", [node.inputs[0], weight, bias], "mean", result, attributes))
