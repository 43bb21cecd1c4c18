"""Parameters, multiply-accumulates and bytes of a float graph, by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant, label
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class LayerCost:
    """parameters: weights and biases; macs: multiply-accumulates for one sample of the batch."""

    name: str
    operator: str
    parameters: int
    macs: int


def layer_costs(model: ir.Model) -> tuple[LayerCost, ...]:
    """One entry per node that has parameters, in graph order.

    MACs of a convolution: output positions * kernel elements; of a linear: weights. Biases are not
    counted as MACs.
    """
    costs = []
    for node in model.graph:
        arrays = [constant(value) for value in node.inputs if value is not None]
        parameters = sum(array.size for array in arrays if array is not None)
        if parameters and node.op_type in {"Conv", "Gemm", "BatchNormalization", "Mul", "Add"}:
            costs.append(LayerCost(label(node), node.op_type, parameters, _macs(node)))
    return tuple(costs)


def totals(model: ir.Model) -> tuple[int, int]:
    """(parameters, macs) of the whole graph."""
    costs = layer_costs(model)
    return sum(cost.parameters for cost in costs), sum(cost.macs for cost in costs)


def _macs(node: ir.Node) -> int:
    if node.op_type not in {"Conv", "Gemm"}:
        return 0
    weight = constant(node.inputs[1])
    if weight is None:
        return 0
    if node.op_type == "Gemm":
        return int(weight.size)
    shape = static_shape(node.outputs[0])
    positions = 1 if shape is None else int(np.prod(shape[2:], dtype=np.int64))
    return int(weight.size) * positions
