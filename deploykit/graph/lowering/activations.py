"""Hard activations as the sums, clips and products that they are.

    HardSigmoid(x) = clip(a*x + b, 0, 1)       = a * clip(x + b/a, 0, 1/a)          a > 0
    HardSwish(x)   = x * clip(x/6 + 1/2, 0, 1) = 1/6 * (x * clip(x + 3, 0, 6))

The clip is the range of an integer tensor and costs nothing; the factor goes into the next weights
(push_scales). Written as HARD_SWISH, LiteRT 2.3 takes fifty times as long in int8.
Source: ONNX operator specification, HardSigmoid and HardSwish.
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.edit import attribute_float
from deploykit.graph.lowering.building import Replacement, replace_each, scalar
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def lower_activations(network: Network) -> Rewritten:
    """Replace every HardSwish, and every HardSigmoid that rises."""
    return replace_each(network, lambda node: _slope(node) > 0.0, _replace)


def _slope(node: ir.Node) -> float:
    """Of the part that rises; 0 where the node is another or its shape is unknown."""
    if static_shape(node.outputs[0]) is None:
        return 0.0
    match node.op_type:
        case "HardSwish":
            return 1.0 / 6.0
        case "HardSigmoid":
            return attribute_float(node, "alpha", 0.2)
        case _:
            return 0.0


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, shape = node.inputs[0], static_shape(node.outputs[0])
    assert shape is not None
    new, rank, slope = Replacement(graph, node), len(shape), _slope(node)
    offset = 0.5 if node.op_type == "HardSwish" else attribute_float(node, "beta", 0.5)
    shift = new.constant("shift", scalar(offset / slope, rank))
    shifted = new.node("Add", [source, shift], "shifted", shape)
    bounds = [new.constant("low", scalar(0.0, 0)), new.constant("high", scalar(1.0 / slope, 0))]
    result = new.node("Clip", [shifted, *bounds], "clipped", shape)
    if node.op_type == "HardSwish":
        result = new.node("Mul", [source, result], "product", shape)
    factor = new.constant("factor", scalar(slope, rank))
    new.finish(new.node("Mul", [result, factor], "scaled", shape))
