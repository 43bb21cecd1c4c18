"""Step 4 of the ladder: the integers in a file are the float network's own weights, rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.errors import IntegrityError
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.quantized import Conv, Linear, QuantizedNetwork

HALF_A_STEP = 0.5 * (1 + 1e-4)
"""Rounding to nearest moves a value by half a step; float32 scales blur that a little."""


def farthest_rounding(
    network: QuantizedNetwork, model: ir.Model, plan: Mapping[str, Any]
) -> tuple[str, float]:
    """(operator, steps): the weight or bias that lies farthest from its float value.

    In steps of its own scale: |W - scale * q| / scale, and for a bias |b - step * q| / step with
    step = input scale * weight scale. At most HALF_A_STEP where nobody changed either side.

    Raises IntegrityError where the float model lacks the layer.
    """
    nodes = {node.name: node for node in model.graph}
    farthest = ("", 0.0)
    for operator in network.operators:
        if not isinstance(operator, Conv | Linear):
            continue
        name = str(plan["names"].get(operator.output, operator.output))
        node = nodes.get(_first_node(plan, name))
        if node is None or len(node.inputs) < 3:
            raise IntegrityError(f"model.float.onnx has no layer {name}, which the plan names")
        scale = operator.weight.scale.astype(np.float64)
        step = scale * np.float64(np.float32(network.tensors[operator.input].quantization.scale))
        for value, integers, unit in (
            (node.inputs[1], operator.weight.values, scale),
            (node.inputs[2], operator.bias, step),
        ):
            farthest = max(
                farthest, (name, _steps(name, value, integers, unit)), key=lambda x: x[1]
            )
    return farthest


def _first_node(plan: Mapping[str, Any], layer: str) -> str:
    nodes = plan["layers"].get(layer, {}).get("nodes", [])
    return str(nodes[0]) if nodes else ""


def _steps(name: str, value: ir.Value | None, integers: AnyArray, unit: Float64Array) -> float:
    array = None if value is None or value.const_value is None else value.const_value.numpy()
    if array is None or array.shape != integers.shape:
        raise IntegrityError(f"model.float.onnx: the parameters of layer {name} have another shape")
    by_channel = unit.reshape((-1,) + (1,) * (integers.ndim - 1))
    distance = np.abs(array.astype(np.float64) / by_channel - integers)
    return float(distance.max(initial=0.0))
