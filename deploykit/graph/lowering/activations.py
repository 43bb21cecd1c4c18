"""Hard activations as the sums, clips and products that they are.

    HardSigmoid(x) = clip(a*x + b, 0, 1)       = a * clip(x + b/a, 0, 1/a)          a > 0
    HardSwish(x)   = x * clip(x/6 + 1/2, 0, 1) = 1/6 * (x * clip(x + 3, 0, 6))

The clip is the range of an integer tensor and costs nothing. Where a layer computes x for the
activation alone, it takes b/a into its bias, or 1/sqrt(6) into its weights:

    HardSwish(sqrt(6) * u) = u * clip(u + sqrt(6)/2, 0, sqrt(6))

A factor that is left goes into the next weights (push_scales). Written as HARD_SWISH, LiteRT 2.3
takes fifty times as long in int8.
Source: ONNX operator specification, HardSigmoid and HardSwish.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_float, fresh_name, readers
from deploykit.graph.lowering.building import Replacement, scalar
from deploykit.graph.passes.affine import Affine, scale_producer
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

ROOT = sqrt(6.0)


def lower_activations(network: Network) -> Rewritten:
    """Replace every HardSwish, and every HardSigmoid that rises."""
    if not any(_slope(node) > 0.0 for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), rounded=network.given.activations.keys())
    for node in list(model.graph):
        match node.op_type if _slope(node) > 0.0 else None:
            case "HardSwish":
                _hard_swish(affine, node)
            case "HardSigmoid":
                _hard_sigmoid(affine, node)
    return affine.finish(network, model)


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


def _hard_swish(affine: Affine, node: ir.Node) -> None:
    source, shape = node.inputs[0], static_shape(node.outputs[0])
    assert source is not None and shape is not None
    new, rank = Replacement(affine.graph, node), len(shape)
    taken = _taken_by_producer(affine, source, f"{node.outputs[0].name}.root", 1.0 / ROOT, 0.0)
    top = ROOT if taken else 6.0
    shift = new.constant("shift", scalar(top / 2.0, rank))
    gate = _clipped(new, new.node("Add", [source, shift], "shifted", shape), shape, top)
    result = new.node("Mul", [source, gate], "product", shape)
    if not taken:
        factor = new.constant("factor", scalar(1.0 / 6.0, rank))
        result = new.node("Mul", [result, factor], "scaled", shape)
    new.finish(result)


def _hard_sigmoid(affine: Affine, node: ir.Node) -> None:
    source, shape, slope = node.inputs[0], static_shape(node.outputs[0]), _slope(node)
    assert source is not None and shape is not None
    new, rank = Replacement(affine.graph, node), len(shape)
    offset = attribute_float(node, "beta", 0.5) / slope
    shifted = source
    if not _taken_by_producer(affine, source, f"{node.outputs[0].name}.shifted", 1.0, offset):
        shift = new.constant("shift", scalar(offset, rank))
        shifted = new.node("Add", [source, shift], "shifted", shape)
    gate = _clipped(new, shifted, shape, 1.0 / slope)
    factor = new.constant("factor", scalar(slope, rank))
    new.finish(new.node("Mul", [gate, factor], "scaled", shape))


def _taken_by_producer(
    affine: Affine, source: ir.Value, name: str, scale: float, offset: float
) -> bool:
    """Whether the layer that computes `source` for one reader computes scale * source + offset now.

    What it computes then has another name: it is another tensor.
    """
    producer, shape = source.producer(), static_shape(source)
    if producer is None or shape is None or len(shape) < 2:
        return False
    if len(readers(source)) != 1 or source.is_graph_output():
        return False
    if producer.op_type not in {"Conv", "Gemm"}:
        return False
    channels = np.ones(shape[1])
    if not scale_producer(affine, producer, scale * channels, offset * channels):
        return False
    source.name = fresh_name(affine.graph, name)
    return True


def _clipped(new: Replacement, value: ir.Value, shape: tuple[int, ...], top: float) -> ir.Value:
    bounds = [new.constant("low", scalar(0.0, 0)), new.constant("high", scalar(top, 0))]
    return new.node("Clip", [value, *bounds], "clipped", shape)
