"""Step 4 of the ladder: the integers in a file are the float network's own weights, rounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.errors import IntegrityError
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.correction import corrected_bias
from deploykit.spec.operators import Conv, Linear, operator_inputs
from deploykit.spec.quantized import ActivationTensor, ConstantTensor, QuantizedNetwork

HALF_A_STEP = 0.5 * (1 + 1e-4)
"""Rounding to nearest moves a value by half a step; float32 scales blur that a little."""
BEYOND_RANGE = 1.0
"""How far a mean may lie outside of a tensor's range, in ranges: calibration may clip."""


def farthest_rounding(
    network: QuantizedNetwork, model: ir.Model, plan: Mapping[str, Any]
) -> tuple[str, float]:
    """(operator, steps): the weight, bias or constant that lies farthest from its float value.

    In steps of its own scale: |W - scale * q| / scale, and for a bias |b' - step * q| / step with
    step = input scale * weight scale and b' of spec.correction. At most HALF_A_STEP where nobody
    changed either side.

    Raises IntegrityError where the float model lacks the layer.
    """
    nodes = {node.name: node for node in model.graph}
    found = [("", 0.0)]
    for operator in network.operators:
        held = [name for name in operator_inputs(operator) if name in network.constants]
        if not isinstance(operator, Conv | Linear) and not held:
            continue
        name = str(plan["names"].get(operator.output, operator.output))
        node = nodes.get(_first_node(plan, name))
        if node is None:
            raise IntegrityError(f"model.float.onnx has no layer {name}, which the plan names")
        if isinstance(operator, Conv | Linear):
            found.extend(_layer(name, node, operator, network, plan["layers"][name]))
        else:
            found.extend(_constant(name, node, network.constants[one]) for one in held)
    return max(found, key=lambda one: one[1])


def _layer(
    name: str,
    node: ir.Node,
    operator: Conv | Linear,
    network: QuantizedNetwork,
    decisions: Mapping[str, Any],
) -> Iterator[tuple[str, float]]:
    """The weight against its float value, the bias against that less what rounding adds to it."""
    arrays = [_array(value) for value in node.inputs[1:3]]
    weight, bias = arrays if len(arrays) == 2 else (None, None)
    if weight is None or bias is None or weight.shape != operator.weight.values.shape:
        raise IntegrityError(f"model.float.onnx: the parameters of layer {name} have another shape")
    scale = operator.weight.scale.astype(np.float64)
    source = network.tensors[operator.input]
    step = scale * np.float64(np.float32(source.quantization.scale))
    means = _input_means(name, decisions, source, weight, operator)
    corrected = corrected_bias(bias, weight, operator.weight.values, operator.weight.scale, means)
    yield name, _steps(weight, operator.weight.values, scale)
    yield name, _steps(corrected, operator.bias, step)


def _input_means(
    name: str,
    decisions: Mapping[str, Any],
    source: ActivationTensor,
    weight: AnyArray,
    operator: Conv | Linear,
) -> Float32Array:
    """Those that the plan states, which have to be means of what the tensor can hold."""
    channels = weight.shape[1] * (operator.groups if isinstance(operator, Conv) else 1)
    try:
        means = np.array(decisions["bias_corrected_by_input_means"], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"plan.json: layer {name} states no input means") from error
    low, high = source.quantization.dequantize(np.array([-128, 127], np.int8))
    slack = BEYOND_RANGE * (high - low)
    if means.shape != (channels,) or not np.all((means >= low - slack) & (means <= high + slack)):
        raise IntegrityError(
            f"plan.json: the input means of layer {name} are none that {source.name} can have"
        )
    return means


def _constant(name: str, node: ir.Node, constant: ConstantTensor) -> tuple[str, float]:
    value = next((one for one in node.inputs if one and one.name == constant.name), None)
    array = _array(value)
    if array is None or array.size != constant.values.size:
        raise IntegrityError(f"model.float.onnx: the constant of layer {name} has another shape")
    integers = constant.values.reshape(array.shape)
    return name, _steps(array, integers, np.array(constant.quantization.scale))


def _first_node(plan: Mapping[str, Any], layer: str) -> str:
    nodes = plan["layers"].get(layer, {}).get("nodes", [])
    return str(nodes[0]) if nodes else ""


def _array(value: ir.Value | None) -> AnyArray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _steps(array: AnyArray, integers: AnyArray, unit: Float64Array) -> float:
    """The largest distance in units, which are one, or by channel along axis 0."""
    by_channel = unit if unit.ndim == 0 else unit.reshape((-1,) + (1,) * (integers.ndim - 1))
    distance = np.abs(array.astype(np.float64) / by_channel - integers)
    return float(distance.max(initial=0.0))
