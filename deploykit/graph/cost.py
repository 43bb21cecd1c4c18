"""Parameters, multiply-accumulates and bytes of a float graph, by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import attribute_int, constant, label
from deploykit.spec.arrays import AnyArray

PARAMETRIC = frozenset(
    (
        "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization",
        "LayerNormalization", "PRelu", "Mul", "Div", "Add", "Sub", "GRU", "LSTM", "RNN",
    )
)  # fmt: skip
"""Operators whose constants are parameters; a Clip's bounds or a Reshape's target are not."""

RECURRENT = frozenset(("GRU", "LSTM", "RNN"))
"""Whose weights, recurrent weights and biases are parameters, and first states are not."""


@dataclass(frozen=True)
class LayerCost:
    """parameters: weights and biases; macs: multiply-accumulates for one sample of the batch."""

    name: str
    operator: str
    parameters: int
    macs: int


def layer_costs(model: ir.Model) -> tuple[LayerCost, ...]:
    """One entry per node that has parameters or multiplies matrices, in graph order.

    MACs of a convolution: output positions * kernel elements (transposed: input positions); of a
    linear: weights, at every position that it is applied to; of a recurrent layer: both weights, at
    every time; of a product of two activations: its outputs * the terms of each. Biases are not
    counted as MACs.
    """
    batch = _batch(model)
    costs = []
    for node in model.graph:
        if not _parametric(node):
            continue
        parameters = sum(array.size for array in _parameters(node))
        if parameters or node.op_type == "MatMul":
            macs = _macs(node, batch)
            costs.append(LayerCost(label(node), node.op_type, parameters, macs))
    return tuple(costs)


def totals(model: ir.Model) -> tuple[int, int]:
    """(parameters, macs) of the whole graph; numbers that several layers share count once."""
    macs = sum(cost.macs for cost in layer_costs(model))
    seen: dict[tuple[object, ...], int] = {}
    for node in model.graph:
        if _parametric(node):
            held = _parameters(node)
            key = (node.op_type, *((array.shape, array.tobytes()) for array in held))
            seen[key] = sum(array.size for array in held)
    return sum(seen.values()), macs


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all parameters, as they are stored."""
    found = {
        str(value.name): value.const_value.nbytes
        for node in model.graph
        if _parametric(node)
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    return sum(found.values())


def _parameters(node: ir.Node) -> list[AnyArray]:
    read = node.inputs[:4] if node.op_type in RECURRENT else node.inputs
    arrays = (constant(value) for value in read if value is not None)
    return [array for array in arrays if array is not None]


def _parametric(node: ir.Node) -> bool:
    """A Gather by constants picks channels; one of a constant holds a table of parameters."""
    table = node.op_type == "Gather" and constant(node.inputs[0]) is not None
    return table or node.op_type in PARAMETRIC


def _macs(node: ir.Node, batch: int) -> int:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    match node.op_type:
        case "Conv" if weight is not None:
            return weight.size * _product(_sizes(node.outputs[0])[2:])
        case "ConvTranspose" if weight is not None:
            return weight.size * _product(_sizes(node.inputs[0])[2:])
        case "Gemm" | "MatMul" if weight is not None:
            return weight.size * (_product(_sizes(node.outputs[0])[:-1]) // batch)
        case name if name in RECURRENT and weight is not None:
            inner = constant(node.inputs[2])
            times = _sizes(node.inputs[0])[1 if attribute_int(node, "layout", 0) else 0]
            return times * (weight.size + (0 if inner is None else inner.size))
        case "MatMul":
            terms = _sizes(node.inputs[0])[-1]
            return terms * (_product(_sizes(node.outputs[0])) // batch)
        case _:
            return 0


def _product(sizes: tuple[int, ...]) -> int:
    return int(np.prod(sizes, dtype=np.int64))


def _batch(model: ir.Model) -> int:
    """Samples that one pass computes: the first size of the first input, 1 where it is open."""
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers and value.shape is not None:
            first = value.shape[0] if len(value.shape) else 1
            return first if isinstance(first, int) and first > 0 else 1
    return 1


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    """Sizes of a tensor, with a symbolic batch as 1.

    Raises GraphError where another size is unknown, which would make the count wrong.
    """
    shape = () if value is None or value.shape is None else tuple(value.shape)
    first = tuple(size if isinstance(size, int) else 1 for size in shape[:1])
    rest = tuple(size for size in shape[1:] if isinstance(size, int))
    if not shape or len(rest) != len(shape) - 1:
        name = None if value is None else value.name
        raise GraphError(
            f"the shape of {name} is not known, so its MACs cannot be counted; export the "
            "network with a fixed input shape"
        )
    return (*first, *rest)
