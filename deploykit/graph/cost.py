"""Parameters, multiply-accumulates and bytes of a float graph, by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import constant, label

PARAMETRIC = frozenset(("Conv", "Gemm", "MatMul", "BatchNormalization", "Mul", "Div", "Add", "Sub"))
"""Operators whose constants are parameters; a Clip's bounds or a Reshape's target are not."""


@dataclass(frozen=True)
class LayerCost:
    """parameters: weights and biases; macs: multiply-accumulates for one sample of the batch."""

    name: str
    operator: str
    parameters: int
    macs: int


def layer_costs(model: ir.Model) -> tuple[LayerCost, ...]:
    """One entry per node that has parameters, in graph order.

    MACs of a convolution: output positions * kernel elements; of a linear: weights, at every
    position that it is applied to. Biases are not counted as MACs.
    """
    costs = []
    for node in model.graph:
        arrays = [constant(value) for value in node.inputs if value is not None]
        parameters = sum(array.size for array in arrays if array is not None)
        if parameters and node.op_type in PARAMETRIC:
            costs.append(LayerCost(label(node), node.op_type, parameters, _macs(node)))
    return tuple(costs)


def totals(model: ir.Model) -> tuple[int, int]:
    """(parameters, macs) of the whole graph."""
    costs = layer_costs(model)
    return sum(cost.parameters for cost in costs), sum(cost.macs for cost in costs)


def _macs(node: ir.Node) -> int:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None:
        return 0
    sizes = _sizes(node.outputs[0])
    match node.op_type:
        case "Conv":
            positions = sizes[2:]
        case "Gemm" | "MatMul":
            positions = sizes[1:-1]
        case _:
            return 0
    return int(weight.size * np.prod(positions, dtype=np.int64))


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """Sizes of a tensor behind its first axis too, with a symbolic batch as 1.

    Raises GraphError where another size is unknown, which would make the count wrong.
    """
    shape = () if value.shape is None else tuple(value.shape)
    sizes = tuple(size for size in shape[1:] if isinstance(size, int))
    if not shape or len(sizes) != len(shape) - 1:
        raise GraphError(
            f"the shape of {value.name} is not known, so its MACs cannot be counted; export the "
            "network with a fixed input shape"
        )
    return (1, *sizes)
