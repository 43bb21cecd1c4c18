"""Parts along axis 0 for files of any batch: there lie the samples, one behind another.

    y = x[a:b], x: [s0, ...] of one sample    y = Reshape(Reshape(x, [1, s0, n])[:, a:b], ...)

Such an axis is none of samples: a Transpose brought another one there (queries, keys and values).
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

AXES = 3
"""The input of a Slice that names its axes."""


def free_first_axis(network: Network) -> Rewritten:
    """Replace every Slice along axis 0 alone. network: of one sample, lowered."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    shape, output = static_shape(node.inputs[0]) if node.inputs else None, node.outputs[0]
    if node.op_type != "Slice" or len(node.inputs) <= AXES or shape is None:
        return False
    axes = constant(node.inputs[AXES])
    along = axes is not None and (axes.reshape(-1) % len(shape)).tolist() == [0]
    return along and len(shape) > 1 and static_shape(output) is not None


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and result is not None
    new, rest = Replacement(graph, node), prod(source[1:])
    rows = new.reshaped(node.inputs[0], "rows", (1, source[0], rest))
    axis = new.constant("axis", np.array([1], np.int64))
    inputs = [rows, *node.inputs[1:AXES], axis, *node.inputs[AXES + 1 :]]
    cut = new.node("Slice", inputs, "cut", (1, result[0], rest))
    new.finish(new.reshaped(cut, "part", result))
