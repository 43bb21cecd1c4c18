"""Step 4 of the ladder: the integers in a file are the float network's own weights, rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.errors import IntegrityError
from deploykit.quantize.constants import held_end
from deploykit.quantize.nodes import parameter_of
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.correction import corrected_bias
from deploykit.spec.operators import (
    Add,
    Conv,
    Embedding,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    Minimum,
    operator_inputs,
)
from deploykit.spec.plan import Rounding
from deploykit.spec.quantized import (
    ActivationTensor,
    ConstantTensor,
    Quantization,
    QuantizedNetwork,
    int_range,
)

BLUR = 1 + 1e-4
"""float32 scales blur what a value is in steps by so much."""
NEAREST = Rounding.NEAREST.steps
EACH, ON_AVERAGE = "a weight or bias is", "weights are on average"
FEW_BITS = 4
"""Up to which two steps are so much of the range that the mean has to tell."""
CHECKED = Conv | Linear | LeakyRelu | Embedding | Lookup
"""Operators with numbers of their own."""
FLOAT_ROUNDING = 2.0**-22
"""Four half steps of float32, for the size of a number: what the roundings of independent terms
add up to, for the root of their squares' sum. A temperature rounds the last layer's once more."""
BEYOND_RANGE = 1.0
"""How far a mean may lie outside of a tensor's range, in ranges: calibration may clip."""


@dataclass(frozen=True)
class Distance:
    """How far integers lie from their float values, at most, and may lie: in steps of the scale."""

    operator: str
    steps: float
    allowed: float
    what: str = EACH

    @property
    def share(self) -> float:
        """Above 1 where somebody changed either side."""
        return self.steps / (self.allowed * BLUR)

    def __str__(self) -> str:
        """Which it is and how far."""
        return (
            f"operator {self.operator}: {self.what} {self.steps:.2f} steps from its float value, "
            f"where {self.allowed:.1f} are allowed"
        )


def farthest_rounding(
    network: QuantizedNetwork, model: ir.Model, plan: Mapping[str, Any]
) -> Distance:
    """The weight, bias, constant or slope farthest from its float value, for what it may.

    In steps of its own scale: |W - scale * q| / scale, and for a bias |b' - step * q| / step with
    step = input scale * weight scale and b' of spec.correction. Weights may lie as far as the
    plan's rounding moves them from where its bits clip them, everything else half a step; a bias of
    millions of steps also as far as float32 rounds its terms.

    Raises IntegrityError where the float model lacks the layer, or the plan names no rounding.
    """
    try:
        rounding = Rounding(plan.get("rounding"))
    except ValueError as error:
        raise IntegrityError(
            f"plan.json names no known rounding ({error}); export the bundle again"
        ) from error
    nodes = {node.name: node for node in model.graph}
    found = [Distance("", 0.0, NEAREST)]
    for operator in network.operators:
        held = [name for name in operator_inputs(operator) if name in network.constants]
        if not isinstance(operator, CHECKED) and not held:
            continue
        name = str(plan["names"].get(operator.output, operator.output))
        node = nodes.get(_first_node(plan, name))
        if node is None:
            raise IntegrityError(f"model.float.onnx has no layer {name}, which the plan names")
        if isinstance(operator, LeakyRelu):
            found.append(Distance(name, _slope_steps(node, operator), NEAREST))
        elif isinstance(operator, Lookup):
            same = parameter_of(node) == operator.parameter
            found.append(Distance(name, 0.0 if same else math.inf, NEAREST))
        elif isinstance(operator, Embedding):
            into = network.tensors[operator.output].quantization
            found.append(Distance(name, _table_steps(node, operator, into), NEAREST))
        elif isinstance(operator, Conv | Linear):
            decisions = plan["layers"][name]
            found.extend(_layer(name, node, operator, network, decisions, rounding))
        else:
            compares = isinstance(operator, Maximum | Minimum)
            for one in held:
                constant = network.constants[one]
                array = _float_constant(name, node, constant)
                if isinstance(operator, Add):
                    array = _where_it_matters(array, constant, operator, network)
                found.append((_bound if compares else _constant)(name, array, constant))
    worst = max(found, key=lambda one: one.share)
    if worst.share > 1.0:
        return worst
    return max((one for one in found if one.what == EACH), key=lambda one: one.share)


def _layer(
    name: str,
    node: ir.Node,
    operator: Conv | Linear,
    network: QuantizedNetwork,
    decisions: Mapping[str, Any],
    rounding: Rounding,
) -> Iterator[Distance]:
    """The weight against its float value, the bias against that less what rounding adds to it."""
    arrays = [_array(value) for value in node.inputs[1:3]]
    weight, bias = arrays if len(arrays) == 2 else (None, None)
    if weight is None or bias is None or weight.shape != operator.weight.values.shape:
        raise IntegrityError(f"model.float.onnx: the parameters of layer {name} have another shape")
    scale = operator.weight.scale.astype(np.float64)
    source = network.tensors[operator.input]
    step = scale * np.float64(np.float32(source.quantization.scale))
    if rounding.in_sequence:
        shift = _shift(name, decisions, source, weight, operator)
        corrected = bias.astype(np.float64) + shift
        squares = np.square(bias.astype(np.float64)) + np.square(shift)
    else:
        means = _input_means(name, decisions, source, weight, operator)
        values = operator.weight.values
        corrected = corrected_bias(bias, weight, values, operator.weight.scale, means)
        squares = np.square(bias.astype(np.float64)) + _squared_terms(weight, means)
    bits = _weight_bits(name, decisions)
    far = _weight_steps(weight, operator.weight.values, scale, bits)
    yield Distance(name, float(far.max(initial=0.0)), rounding.steps)
    if rounding.in_sequence and bits <= FEW_BITS:
        yield Distance(name, float(far.mean()), 0.5 + 1.0 / math.sqrt(far.size), ON_AVERAGE)
    steps = np.abs(corrected / step - operator.bias) - FLOAT_ROUNDING * np.sqrt(squares) / step
    yield Distance(name, max(float(steps.max(initial=0.0)), 0.0), NEAREST)


def _squared_terms(weight: AnyArray, means: Float32Array) -> Float64Array:
    """[O], sum of (W * mean of its input)^2."""
    outputs, inputs = weight.shape[:2]
    squares = np.square(weight.astype(np.float64)).reshape(outputs, inputs, -1).sum(2)
    groups = len(means) // inputs
    seen = np.square(means.astype(np.float64)).reshape(groups, inputs)
    return np.asarray((squares * seen.repeat(outputs // groups, axis=0)).sum(axis=1))


def _weight_bits(name: str, decisions: Mapping[str, Any]) -> int:
    bits = decisions.get("weight", {}).get("bits")
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise IntegrityError(f"plan.json: layer {name} states no bits of its weight from 2 to 8")
    return bits


def _weight_steps(
    weight: AnyArray, values: AnyArray, scale: Float64Array, bits: int
) -> Float64Array:
    """In steps. Below 8 bits a weight beyond their range counts as the end that it is clipped to.

    The lowest integer is an end where the file holds it: of a grid that the weight came on.
    """
    if bits < 8:
        lowest, highest = int_range(bits)
        step = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
        low = np.where(values == lowest, lowest, -highest)
        weight = np.clip(weight.astype(np.float64), step * low, step * highest)
    return _distances(weight, values, scale)


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


def _shift(
    name: str,
    decisions: Mapping[str, Any],
    source: ActivationTensor,
    weight: AnyArray,
    operator: Conv | Linear,
) -> Float32Array:
    """That the plan states, which the layer's weights have to be able to make of its inputs."""
    try:
        shift = np.array(decisions["bias_moved_by"], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"plan.json: layer {name} does not state its bias's move") from error
    largest = float(np.abs(source.quantization.ends).max())
    real = operator.weight.scale * np.abs(operator.weight.values).reshape(len(weight), -1).sum(1)
    reached = (1 + BEYOND_RANGE) * largest * (np.abs(weight).reshape(len(weight), -1).sum(1) + real)
    if shift.shape != (len(weight),) or not np.all(np.abs(shift) <= reached):
        raise IntegrityError(
            f"plan.json: the bias of layer {name} moves by what {source.name} cannot make up"
        )
    return shift


def _where_it_matters(
    array: AnyArray, constant: ConstantTensor, operator: Add, network: QuantizedNetwork
) -> AnyArray:
    """The terms, but the integers' own where both hold the sum at the same end of its range."""
    (other,) = (name for name in operator_inputs(operator) if name != constant.name)
    source, into = (network.tensors[name].quantization for name in (other, operator.output))
    own = constant.quantization.dequantize(constant.values).astype(np.float64)
    stated = array.astype(np.float64).reshape(own.shape)
    ends, wanted = (held_end(terms, source, into) for terms in (own, stated))
    return np.where((ends == wanted) & (ends != 0), own, stated).reshape(array.shape)


def _bound(name: str, array: AnyArray, constant: ConstantTensor) -> Distance:
    """Of what is compared with a tensor: what lies beyond the range is its end."""
    integers = constant.values.reshape(array.shape)
    return Distance(name, _clipped_steps(array, integers, constant.quantization), NEAREST)


def _constant(name: str, array: AnyArray, constant: ConstantTensor) -> Distance:
    grid = constant.quantization
    integers = constant.values.reshape(array.shape).astype(np.int64) - grid.zero_point
    return Distance(name, _steps(array, integers, np.array(grid.scale)), NEAREST)


def _float_constant(name: str, node: ir.Node, constant: ConstantTensor) -> AnyArray:
    """The real numbers that a constant's integers stand for."""
    value = next((one for one in node.inputs if one and one.name == constant.name), None)
    array = _array(value)
    if array is None or array.size != constant.values.size:
        raise IntegrityError(f"model.float.onnx: the constant of layer {name} has another shape")
    return array


def _table_steps(node: ir.Node, operator: Embedding, into: Quantization) -> float:
    array = _array(node.inputs[0] if node.inputs else None)
    if array is None or array.shape != operator.table.values.shape:
        raise IntegrityError(
            f"model.float.onnx: the table of layer {operator.name} has another shape"
        )
    return _clipped_steps(array, operator.table.values, into)


def _clipped_steps(array: AnyArray, integers: AnyArray, into: Quantization) -> float:
    """|held(x / scale + zero point) - q|, held within what its bits can be: a range may clip."""
    wanted = array.astype(np.float64) / np.float64(np.float32(into.scale)) + into.zero_point
    held = np.clip(wanted, *int_range(into.bits))
    return float(np.abs(held - integers).max(initial=0.0))


def _slope_steps(node: ir.Node, operator: LeakyRelu) -> float:
    """|256 * alpha - slope|; a slope under 1/256 is one."""
    if node.op_type != "LeakyRelu":
        raise IntegrityError(f"model.float.onnx has no LeakyRelu {node.name}, which the plan names")
    stated = float(node.attributes["alpha"].as_float()) if "alpha" in node.attributes else 0.01
    return abs(max(stated * 256, 1.0) - operator.slope)


def _first_node(plan: Mapping[str, Any], layer: str) -> str:
    nodes = plan["layers"].get(layer, {}).get("nodes", [])
    return str(nodes[0]) if nodes else ""


def _array(value: ir.Value | None) -> AnyArray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _steps(array: AnyArray, integers: AnyArray, unit: Float64Array) -> float:
    """The largest distance in units, which are one, or by channel along axis 0."""
    return float(_distances(array, integers, unit).max(initial=0.0))


def _distances(array: AnyArray, integers: AnyArray, unit: Float64Array) -> Float64Array:
    by_channel = unit if unit.ndim == 0 else unit.reshape((-1,) + (1,) * (integers.ndim - 1))
    return np.abs(array.astype(np.float64) / by_channel - integers)
