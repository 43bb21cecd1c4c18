"""A positive number that multiplies a tensor moves into the weights that read it.

    W * (k * x) + b = (k * W) * x + b

through everything between that a positive factor passes unchanged: Relu, pooling, products with
another tensor, views, nearest resizing. What it meets on the way is k times smaller, and so is its
scale: no integer changes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_string, bypass, constant
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network

PASSING = frozenset(
    (
        "Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
        "ReduceMean", "ReduceMax", "ReduceSum", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
        "Transpose", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Resize",
    )
)  # fmt: skip
"""f(k * x) = k * f(x) for k > 0, in the first input."""
LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


def push_scales(network: Network) -> Rewritten:
    """Remove every product with one positive constant whose readers can all take it."""
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), rounded=network.given.activations.keys())
    for node in list(model.graph):
        source, factor = _factor(node)
        if source is None or source.producer() is None:
            continue
        layers: set[ir.Node] = set()
        passed: set[ir.Value] = set()
        reached = _collect(node.outputs[0], layers, passed)
        if reached and not any(value.name in affine.rounded for value in passed):
            for layer in layers:
                assert layer.inputs[1] is not None
                affine.scale(str(layer.inputs[1].name), np.asarray(factor))
            bypass(model.graph, node, source)
    return affine.finish(network, model) if affine.updated else Rewritten(network)


def _factor(node: ir.Node) -> tuple[ir.Value | None, float]:
    """(x, k) of a node x * k or x / (1/k) with one k > 0 for all of x."""
    if node.op_type not in {"Mul", "Div"} or len(node.inputs) != 2:
        return None, 1.0
    left, right = node.inputs
    if node.op_type == "Mul" and constant(left) is not None:
        left, right = right, left
    held = constant(right)
    if held is None or constant(left) is not None or held.size != 1:
        return None, 1.0
    number = float(held.reshape(()))
    if not (np.isfinite(number) and number > 0.0):
        return None, 1.0
    return left, number if node.op_type == "Mul" else 1.0 / number


def _collect(value: ir.Value, layers: set[ir.Node], passed: set[ir.Value]) -> bool:
    """Whether everything that `value` reaches takes the factor once; `layers` fills with it."""
    if value.is_graph_output() or value in passed:
        return value in passed
    passed.add(value)
    return all(_takes(use.node, use.idx, layers, passed) for use in value.uses())


def _takes(node: ir.Node, place: int, layers: set[ir.Node], passed: set[ir.Value]) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type in LAYERS:
        if place != 0 or not own_weight(weight) or constant(weight) is None:
            return False
        layers.add(node)
        return True
    if node.op_type == "Mul":
        # With the factor on both sides it would count twice.
        once = sum(value in passed for value in node.inputs if value is not None) == 1
        return once and _collect(node.outputs[0], layers, passed)
    if node.op_type == "Resize" and attribute_string(node, "mode", "nearest") != "nearest":
        return False
    if node.op_type not in PASSING or place != 0:
        return False
    return all(_collect(output, layers, passed) for output in node.outputs)
