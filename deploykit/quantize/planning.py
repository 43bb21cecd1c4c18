"""plan_quantization: every decision about integers, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.quantize.agreement import prove_add, prove_global_average
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.histogram import Histogram
from deploykit.quantize.observe import observe_tensors
from deploykit.quantize.scales import activation_quantization, input_quantization
from deploykit.quantize.structure import SHARING, Layer, build_structure
from deploykit.quantize.weights import (
    LARGEST_RATIO,
    round_bias,
    round_weights,
    weight_scales,
)
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.plan import LayerPlan, Proof, QuantPlan, WeightPlan
from deploykit.spec.quantized import IntegerRunner, IoType, Quantization, int_range
from deploykit.spec.samples import Samples

CARRIERS: Mapping[int, Mapping[str, str]] = {8: {"onnx": "int8", "tflite": "int8"}}
"""Storage form of a weight by bit width and format."""


@dataclass(frozen=True)
class QuantizationOptions:
    """What the user decides: weight bits, range choice, type of the graph's own tensors."""

    bits: int = 8
    calibration: Calibration = Calibration.MSE
    io: IoType = IoType.FLOAT


@dataclass(frozen=True)
class Runners:
    """Who evaluates while planning: floats for calibration, integers for the proofs."""

    evaluate: FloatEvaluator
    reference: IntegerRunner
    runtimes: Sequence[IntegerRunner]


def quantized_name(network: Network, tensor: str) -> str:
    """Integer tensor behind a float tensor; the graph's own names are left to its ports."""
    graph = network.model.graph
    own = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    return f"{tensor}_quantized" if tensor in own else tensor


def plan_quantization(
    network: Network,
    samples: Samples,
    options: QuantizationOptions,
    runners: Runners,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuantPlan:
    """Decide scale and zero point of every tensor and the integers of every weight.

    Raises UnsupportedOperatorError, QuantizationError or DataError.
    """
    layers = build_structure(network)
    source = str(network.model.graph.inputs[0].name)
    tensors = [source, *(layer.output for layer in layers if layer.operator not in SHARING)]
    histograms = observe_tensors(network, tensors, samples.inputs, runners.evaluate, progress)
    chosen: dict[str, Quantization] = {
        source: input_quantization(histograms[source], options.calibration)
    }
    proofs: list[Proof] = []
    for layer in layers:
        chosen[layer.output], proof = _output(network, layer, chosen, histograms, options, runners)
        proofs.extend(() if proof is None else (proof,))
    return QuantPlan(
        {quantized_name(network, name): value for name, value in chosen.items()},
        tuple(_layer_plan(network, layer, chosen, options.bits) for layer in layers),
        options.calibration.value,
        len(samples),
        options.io,
        tuple(proofs),
    )


def _output(
    network: Network,
    layer: Layer,
    chosen: Mapping[str, Quantization],
    histograms: Mapping[str, Histogram],
    options: QuantizationOptions,
    runners: Runners,
) -> tuple[Quantization, Proof | None]:
    """Quantization of a layer's output, proved where runtimes could round it differently."""
    if layer.operator in SHARING:
        return chosen[layer.inputs[0]], None
    wanted = activation_quantization(
        histograms[layer.output], options.calibration, layer.low, layer.high
    )
    wanted = replace(wanted, scale=max(wanted.scale, _smallest_scale(layer, chosen)))
    if layer.operator == "Add":
        given = (chosen[layer.inputs[0]], chosen[layer.inputs[1]], wanted)
        return prove_add(layer.name, given, runners.reference, runners.runtimes)
    if layer.operator == "GlobalAveragePool":
        shape = static_shape(layer.nodes[0].inputs[0])
        assert shape is not None
        return prove_global_average(
            layer.name,
            (shape[2], shape[3]),
            (chosen[layer.inputs[0]], wanted),
            runners.reference,
            runners.runtimes,
        )
    return wanted, None


def _smallest_scale(layer: Layer, chosen: Mapping[str, Quantization]) -> float:
    """The finest output scale that runtimes take, and that tells anything.

    A Relu that never fires, or a sum that cancels, asks for a scale far under its inputs'. A
    convolution's accumulator moves in steps of input scale * weight scale: a finer output scale
    tells nothing more, and multiplies a large negative sum beyond int32.
    """
    inputs = max(chosen[name].scale for name in layer.inputs)
    if layer.operator not in {"Conv", "Linear"}:
        return float(np.float32(inputs / LARGEST_RATIO))
    weight = _floats(layer.nodes[0].inputs[1])
    return float(np.float32(inputs * np.abs(weight).max(initial=0.0) / int_range(8)[1]))


def _layer_plan(
    network: Network, layer: Layer, chosen: Mapping[str, Quantization], bits: int
) -> LayerPlan:
    inputs = tuple(quantized_name(network, name) for name in layer.inputs)
    output = quantized_name(network, layer.output)
    nodes = tuple(str(node.name) for node in layer.nodes)
    if layer.operator not in {"Conv", "Linear"}:
        return LayerPlan(layer.name, layer.operator, nodes, inputs, output)
    node = layer.nodes[0]
    weight, bias = _floats(node.inputs[1]), _floats(node.inputs[2])
    input_scale, output_scale = chosen[layer.inputs[0]].scale, chosen[layer.output].scale
    scale = weight_scales(weight, bias, input_scale, output_scale, bits)
    values = round_weights(weight, scale, bits)
    assert node.inputs[1] is not None
    plan = WeightPlan(str(node.inputs[1].name), bits, "per-channel", CARRIERS[bits], scale, values)
    integers = round_bias(layer.name, bias, values, input_scale, scale)
    return LayerPlan(layer.name, layer.operator, nodes, inputs, output, plan, integers)


def _floats(value: ir.Value | None) -> Float64Array:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy().astype("float64")
