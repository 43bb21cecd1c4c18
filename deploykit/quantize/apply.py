"""apply_plan: join the float graph's structure and the plan's numbers into the integer network."""

from __future__ import annotations

from deploykit.errors import QuantizationError
from deploykit.quantize.planning import quantized_name
from deploykit.quantize.structure import Layer, build_structure, window_of
from deploykit.spec.arrays import Int32Array
from deploykit.spec.network import Network, static_shape
from deploykit.spec.plan import LayerPlan, QuantPlan
from deploykit.spec.quantized import (
    ActivationTensor,
    Add,
    Clamp,
    Conv,
    Flatten,
    GlobalAveragePool,
    IntegerWeight,
    Linear,
    MaxPool,
    Operator,
    Port,
    Quantization,
    QuantizedNetwork,
    int_range,
)


def apply_plan(network: Network, plan: QuantPlan) -> QuantizedNetwork:
    """The integer network; it makes no choices of its own.

    Raises QuantizationError where the plan was made for another graph.
    """
    layers = build_structure(network)
    if [layer.name for layer in layers] != [layer.name for layer in plan.layers]:
        raise QuantizationError("the plan was made for another graph: its layers differ")
    graph = network.model.graph
    shapes = {
        str(value.name): static_shape(value) or ()
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs))
    }
    float_names = [str(graph.inputs[0].name), *(layer.output for layer in layers)]
    tensors = {}
    for name in float_names:
        integer = quantized_name(network, name)
        tensors[integer] = ActivationTensor(integer, shapes[name], plan.tensors[integer])
    operators = tuple(
        _operator(layer, decided, plan.tensors[decided.output])
        for layer, decided in zip(layers, plan.layers, strict=True)
    )
    return QuantizedNetwork(
        tensors,
        operators,
        tuple(Port(str(v.name), quantized_name(network, str(v.name))) for v in graph.inputs),
        tuple(Port(str(v.name), quantized_name(network, str(v.name))) for v in graph.outputs),
        plan.io,
    )


def _operator(layer: Layer, plan: LayerPlan, output: Quantization) -> Operator:
    node = layer.nodes[0]
    match layer.operator:
        case "Conv":
            weight, bias = _parameters(plan)
            groups = int(node.attributes["group"].as_int()) if "group" in node.attributes else 1
            return Conv(
                plan.name, plan.inputs[0], plan.output, weight, bias, window_of(node), groups
            )
        case "Linear":
            return Linear(plan.name, plan.inputs[0], plan.output, *_parameters(plan))
        case "Add":
            return Add(plan.name, plan.inputs[0], plan.inputs[1], plan.output)
        case "MaxPool":
            return MaxPool(plan.name, plan.inputs[0], plan.output, window_of(node))
        case "GlobalAveragePool":
            return GlobalAveragePool(plan.name, plan.inputs[0], plan.output)
        case "Flatten":
            return Flatten(plan.name, plan.inputs[0], plan.output)
        case "Clamp":
            low, high = _integer_bounds(layer, output)
            return Clamp(plan.name, plan.inputs[0], plan.output, low, high)
        case unknown:
            raise QuantizationError(f"{plan.name}: the plan names an unknown operator {unknown}")


def _parameters(plan: LayerPlan) -> tuple[IntegerWeight, Int32Array]:
    if plan.weight is None or plan.bias is None:
        raise QuantizationError(f"{plan.name}: the plan holds no weights for this layer")
    weight = plan.weight
    return IntegerWeight(weight.name, weight.values, weight.scale, weight.bits), plan.bias


def _integer_bounds(layer: Layer, quantization: Quantization) -> tuple[int, int]:
    """The bounds of a Relu or Clip as integers of its tensor's quantization."""
    lowest, highest = int_range(quantization.bits)

    def integer(real: float) -> int:
        step = round(real / quantization.scale) + quantization.zero_point
        return min(max(step, lowest), highest)

    low = lowest if layer.low is None else integer(layer.low)
    high = highest if layer.high is None else integer(layer.high)
    return low, high
