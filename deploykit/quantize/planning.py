"""plan_quantization: every decision about integers, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.errors import QuantizationError
from deploykit.quantize.bits import EIGHT_BITS, WeightBits, bits_by_layer, carriers_of
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.compensation import compensated_weights
from deploykit.quantize.constants import bound_operand, constant_operand
from deploykit.quantize.dynamic import check_dynamic
from deploykit.quantize.given import (
    activation_uses,
    fits_runtimes,
    given_integers,
    group_grid,
    trained_bits,
    weight_uses,
)
from deploykit.quantize.histogram import Histogram, merge
from deploykit.quantize.moments import compensates
from deploykit.quantize.nodes import (
    groups_of,
    parameter,
    window_of,
)
from deploykit.quantize.observe import Observations, observe_tensors
from deploykit.quantize.operators import BINARY, WEIGHTED, Kind
from deploykit.quantize.scales import activation_quantization, input_quantization
from deploykit.quantize.settling import Fixed, Runners, settle_scales
from deploykit.quantize.sharing import Group, find_groups, fixed_quantization
from deploykit.quantize.structure import Layer, build_structure, tails
from deploykit.quantize.tied import joint_moments, tied_layers
from deploykit.quantize.weights import pair_scales, round_bias, round_weights, weight_scales
from deploykit.quantize.whole_numbers import integer_table, table_histograms
from deploykit.spec.arrays import AnyArray
from deploykit.spec.carriers import ANY_RUNTIME, CarrierOptions
from deploykit.spec.correction import corrected_bias
from deploykit.spec.given import GivenIntegers
from deploykit.spec.network import Network, static_shape
from deploykit.spec.pairs import LARGEST_PAIR, Target, pair_sums
from deploykit.spec.parallel import in_parallel
from deploykit.spec.plan import ConstantPlan, LayerPlan, PairPlan, QuantPlan, Rounding, WeightPlan
from deploykit.spec.quantized import Batch, IoType, Quantization
from deploykit.spec.samples import Samples
from deploykit.spec.stem import Runtime, as_blocks, chosen_blocks
from deploykit.spec.whole_numbers import real_inputs, whole_inputs, whole_outputs


@dataclass(frozen=True)
class QuantizationOptions:
    """What the user decides: weights' bits and rounding, range choice, the ports' type.

    target: processors for whose 16-bit sums weights are planned.
    """

    bits: WeightBits = EIGHT_BITS
    calibration: Calibration = Calibration.MSE
    io: IoType = IoType.FLOAT
    target: Target | None = None
    batch: Batch = Batch.FIXED
    rounding: Rounding = Rounding.COMPENSATED
    carriers: CarrierOptions = ANY_RUNTIME


def quantized_name(network: Network, tensor: str) -> str:
    """Integer tensor behind a float tensor; the graph's own names are left to its ports.

    Whole numbers are a port themselves.
    """
    graph = network.model.graph
    own = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    own -= {str(value.name) for value in (*whole_inputs(network), *whole_outputs(network))}
    return f"{tensor}_quantized" if tensor in own else tensor


def plan_quantization(
    network: Network,
    samples: Samples,
    options: QuantizationOptions,
    runners: Runners,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuantPlan:
    """Decide scale and zero point of every tensor and the integers of every weight.

    network: canonical, lowered, its concatenations separated.

    Raises UnsupportedOperatorError, QuantizationError or DataError.
    """
    layers = build_structure(network)
    if options.io is not IoType.FLOAT and tails(network):
        (last, *_) = tails(network)
        raise QuantizationError(
            f"--io {options.io.value}: the network ends in {last.op_type} {last.name!r}, which is "
            "computed in float; leave --io out, or end the network before it"
        )
    real = len(network.model.graph.outputs) - len(whole_outputs(network))
    if options.io is not IoType.FLOAT and not real and not real_inputs(network):
        raise QuantizationError(
            f"--io {options.io.value}: all inputs and outputs hold whole numbers, which stay as "
            "they are; leave --io out"
        )
    if options.batch is Batch.DYNAMIC:
        check_dynamic(network, layers)
    sources = real_inputs(network)
    groups = find_groups(layers, sources)
    makers = [name for group in groups for name in group.makers]
    weighted = [layer for layer in layers if layer.kind in WEIGHTED]
    read = [layer.inputs[0] for layer in weighted]
    tied = tied_layers(layers)
    held = given_integers(layers, tied, network.given)
    trained = {name: trained_bits(tied[name][0], network.given) for name in held}
    bits = bits_by_layer(layers, tied, options.bits, trained)
    compensated = []
    if options.rounding is Rounding.COMPENSATED:
        compensated = [layer for layer in weighted if compensates(layer) and layer.name not in held]
    seen = observe_tensors(
        network, makers, read, compensated, samples.inputs, runners.evaluate, progress
    )
    histograms = {**seen.histograms, **table_histograms(layers)}
    chosen: dict[str, Quantization] = {}
    on_grid: set[str] = set()
    for group in groups:
        grid = group_grid(group, layers, sources, network.given)
        if grid is not None:
            on_grid.update(group.tensors)
        quantization = grid or _wanted(group, layers, sources, histograms, options.calibration)
        chosen.update(dict.fromkeys(group.tensors, quantization))
    constants = {
        layer.name: constant_operand(
            layer, [chosen[name] for name in layer.inputs], chosen[layer.output]
        )
        for layer in layers
        if layer.kind in BINARY
    }
    quantized = [layer for layer in layers if layer.kind is not Kind.ARG_MAX]
    proofs = settle_scales(quantized, groups, chosen, constants, runners, Fixed(on_grid, held))
    fitting = {name: fits_runtimes(integers, tied[name], chosen) for name, integers in held.items()}

    constants.update(
        {layer.name: bound_operand(layer, chosen[layer.output]) for layer in quantized}
        | {layer.name: constants[layer.name] for layer in quantized if layer.kind in BINARY}
    )

    def planned(layer: Layer) -> LayerPlan:
        if layer.kind in WEIGHTED:
            own = held[layer.name] if fitting.get(layer.name) else None
            wide = (bits if own is None else trained)[layer.name]
            return _weighted_plan(
                network, layer, tied[layer.name], chosen, seen, options, own, wide
            )
        return _plain_plan(network, layer, constants.get(layer.name), chosen.get(layer.output))

    return QuantPlan(
        {
            quantized_name(network, name): chosen[name]
            for name in (*sources, *(layer.output for layer in quantized))
        },
        tuple(in_parallel(planned, layers)),
        options.calibration.value,
        len(samples),
        options.io,
        options.rounding,
        proofs,
        options.target,
        options.batch,
        (
            *weight_uses(layers, fitting, tied, network.given),
            *activation_uses(groups, layers, sources, chosen, network.given),
        ),
        options.carriers.min_ort,
    )


def _wanted(
    group: Group,
    layers: Sequence[Layer],
    sources: Collection[str],
    histograms: Mapping[str, Histogram],
    method: Calibration,
) -> Quantization:
    """What calibration asks for, before scales move."""
    merged = merge([histograms[name] for name in group.makers])
    if any(name in sources for name in group.makers):
        return input_quantization(merged, method)
    maker = next(layer for layer in layers if layer.output == group.makers[0])
    fixed = fixed_quantization(maker)
    if fixed is not None:
        return fixed
    return activation_quantization(merged, method, group.bounds.low, group.bounds.high)


def _plain_plan(
    network: Network, layer: Layer, constant: ConstantPlan | None, into: Quantization | None
) -> LayerPlan:
    planned = layer_plan(network, layer, constant)
    if layer.kind is Kind.EMBEDDING and into is not None:
        return replace(planned, table=integer_table(layer, into))
    return planned


def layer_plan(network: Network, layer: Layer, constant: ConstantPlan | None) -> LayerPlan:
    """Which nodes and tensors a layer stands for, without weights."""
    inputs = tuple(quantized_name(network, name) for name in layer.inputs)
    output = quantized_name(network, layer.output)
    nodes = tuple(str(node.name) for node in layer.nodes)
    return LayerPlan(layer.name, layer.kind.value, nodes, inputs, output, constant=constant)


def _weighted_plan(
    network: Network,
    layer: Layer,
    tied: Sequence[Layer],
    chosen: Mapping[str, Quantization],
    seen: Observations,
    options: QuantizationOptions,
    held: GivenIntegers | None,
    bits: int,
) -> LayerPlan:
    """Weights are rounded to the nearest where no second moments of the input were observed.

    tied: all layers of these weights, which get the same integers at scales that suit them all.
    held: the integers and scales that the weights were trained on.
    """
    node, first = layer.nodes[0], tied[0].nodes[0]
    weight, bias, groups = parameter(node, 1), parameter(node, 2), groups_of(node)
    input_scale = chosen[layer.inputs[0]].scale
    full = np.maximum.reduce(
        [
            weight_scales(
                weight, parameter(one.nodes[0], 2), chosen[one.inputs[0]].scale,
                chosen[one.output].scale, bits,
            )
            for one in tied
        ]
    )  # fmt: skip
    if held is not None:
        full = held.scale
    least = full
    if held is None and options.target is not None:
        paired = [_in_onnx(one.nodes[0], weight, options) for one in tied]
        pairs_fit = [pair_scales(one, groups, options.rounding) for one in paired]
        least = np.maximum.reduce([full, *pairs_fit])
    moments = None if held is not None else joint_moments(tied, seen.moments)
    if held is not None:
        values, scale = held.values, held.scale
    elif moments is None:
        values, scale = round_weights(weight, least, bits), least
    else:
        values, scale = compensated_weights(weight, least, moments, bits)
    pairs = PairPlan(
        int(pair_sums(_in_onnx(node, values, options), groups).max(initial=0.0)),
        int(np.count_nonzero(least > full)),
        float((least / full).max(initial=1.0)),
    )
    if options.target is not None and pairs.largest > LARGEST_PAIR:
        if held is not None:
            raise QuantizationError(
                f"--target {options.target.value}: the weights of {layer.name} were trained as "
                f"integers, of which two add up to {pairs.largest}, over the {LARGEST_PAIR} that "
                "16-bit sums hold; leave --target out"
            )
        raise QuantizationError(
            f"{layer.name}: two weights that are added in 16 bits reach {pairs.largest}, over "
            f"{LARGEST_PAIR}; this is not expected: please report the layer"
        )
    stored = seen.means[layer.inputs[0]].astype(np.float32)
    corrected = corrected_bias(bias, weight, values, scale, stored)
    assert first.inputs[1] is not None
    return replace(
        layer_plan(network, layer, None),
        weight=WeightPlan(
            str(first.inputs[1].name),
            bits,
            "per-channel",
            carriers_of(layer, bits, values.shape, options.carriers),
            scale,
            values,
            pairs,
        ),
        bias=round_bias(layer.name, corrected, values, input_scale, scale),
        input_means=stored,
    )


def _in_onnx(node: ir.Node, weight: AnyArray, options: QuantizationOptions) -> AnyArray:
    """A layer's weights in the order in which ONNX Runtime's kernel pairs their products."""
    source = static_shape(node.inputs[0])
    if weight.ndim != 4 or source is None:
        return weight
    min_ort = options.carriers.min_ort
    blocks = chosen_blocks(window_of(node), source, groups_of(node), Runtime.ONNXRUNTIME, min_ort)
    return weight if blocks is None else as_blocks(weight, blocks)
