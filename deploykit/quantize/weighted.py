"""The integers of one layer's weight and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from deploykit.errors import QuantizationError
from deploykit.quantize.bits import carriers_of
from deploykit.quantize.clipping import FULL_BITS, clipped_scales
from deploykit.quantize.compensation import compensated_weights
from deploykit.quantize.evidence import Evidence, InputMeans, OutputMeans
from deploykit.quantize.layer_plan import layer_plan
from deploykit.quantize.nodes import groups_of, parameter, window_of
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.refitting import refitted_weights
from deploykit.quantize.structure import Layer
from deploykit.quantize.weights import (
    pair_scales,
    round_bias,
    round_weights,
    smallest_scales,
    weight_scales,
)
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Int8Array
from deploykit.spec.correction import corrected_bias
from deploykit.spec.given import GivenIntegers
from deploykit.spec.network import Network, static_shape
from deploykit.spec.pairs import LARGEST_PAIR, pair_sums
from deploykit.spec.plan import BiasCorrection, LayerPlan, PairPlan, WeightPlan, WeightRange
from deploykit.spec.quantized import Quantization
from deploykit.spec.stem import Runtime, as_blocks, chosen_blocks


def weighted_plan(
    network: Network,
    layer: Layer,
    tied: Sequence[Layer],
    chosen: Mapping[str, Quantization],
    evidence: Evidence,
    options: QuantizationOptions,
    held: GivenIntegers | None,
    bits: int,
) -> LayerPlan:
    """The integers of a layer's weight and bias.

    tied: all layers of these weights, which get the same integers at scales that suit them all.
    held: the integers and scales that the weights were trained on.
    """
    node, first = layer.nodes[0], tied[0].nodes[0]
    weight, bias, groups = parameter(node, 1), parameter(node, 2), groups_of(node)
    target, moments = evidence.target, evidence.moments
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
    elif options.weight_range is WeightRange.LEAST_ERROR:
        full = clipped_scales(target, full, scale_floor(tied, chosen, bits), moments, bits)
    target = _within(options.rounding.drift, target, weight, full)
    least = full
    if held is None and options.target is not None:
        paired = [_in_onnx(one.nodes[0], target, options) for one in tied]
        pairs_fit = [pair_scales(one, groups, options.rounding) for one in paired]
        least = np.maximum.reduce([full, *pairs_fit])
    if held is not None:
        values, scale = held.values, held.scale
    elif moments is None:
        values, scale = round_weights(target, least, bits), least
    else:
        values, scale = compensated_weights(target, least, moments, bits)
        if bits < FULL_BITS and options.weight_range is WeightRange.LEAST_ERROR:
            # A scale under a drift would carry the target more than its steps from the weight.
            drift = np.abs(target - weight).reshape(len(weight), -1).max(axis=1)
            floor = np.maximum(scale_floor(tied, chosen, bits), drift).astype(np.float32)
            values, scale = refitted_weights(target, (values, scale), floor, moments, bits)
    pairs = PairPlan(
        largest_pair(layer, values, options),
        int(np.count_nonzero(least > full)),
        float((least / full).max(initial=1.0)),
    )
    if options.target is not None and pairs.largest > LARGEST_PAIR:
        if held is not None:
            raise QuantizationError(
                f"--target {options.target.value}: the weights of {layer.name} came as "
                f"integers, of which two add up to {pairs.largest}, over the {LARGEST_PAIR} that "
                "16-bit sums hold; leave --target out"
            )
        raise QuantizationError(
            f"{layer.name}: two weights that are added in 16 bits reach {pairs.largest}, over "
            f"{LARGEST_PAIR}; this is not expected: please report the layer"
        )
    means: Float32Array | None
    keeps = options.bias_correction is BiasCorrection.NONE
    match evidence.means:
        case InputMeans() if keeps:
            means, corrected, moved = np.zeros_like(evidence.means.values), bias, None
        # What training chose has its rounding made up for already.
        case OutputMeans() if keeps or held is not None:
            means, corrected, moved = None, bias, np.zeros(len(bias), np.float32)
        case InputMeans(values=means):
            corrected, moved = corrected_bias(bias, weight, values, scale, means), None
        case OutputMeans():
            means, moved = None, evidence.means.shift(values, scale)
            corrected = bias + moved
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
        bias=round_bias(layer.name, corrected, values, input_scale, scale, bits),
        input_means=means,
        output_shift=moved,
    )


def _within(
    steps: float, target: Float64Array, weight: Float64Array, scale: Float32Array
) -> Float64Array:
    """The target where it lies within so many steps of the weight, else the end of these."""
    slack = steps * scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.clip(target, weight - slack, weight + slack)


def largest_pair(layer: Layer, values: Int8Array, options: QuantizationOptions) -> int:
    """The largest sum of two weights [O, ...] whose products processors add in 16 bits."""
    node = layer.nodes[0]
    sums = pair_sums(_in_onnx(node, values, options), groups_of(node))
    return int(sums.max(initial=0.0))


def scale_floor(tied: Sequence[Layer], chosen: Mapping[str, Quantization], bits: int) -> AnyArray:
    """[O], the smallest scales that runtimes take in every one of these layers."""
    floors = [
        smallest_scales(
            parameter(one.nodes[0], 2), chosen[one.inputs[0]].scale, chosen[one.output].scale, bits
        )
        for one in tied
    ]
    return np.asarray(np.maximum.reduce(floors))


def _in_onnx(node: ir.Node, weight: AnyArray, options: QuantizationOptions) -> AnyArray:
    """A layer's weights in the order in which ONNX Runtime's kernel pairs their products."""
    source = static_shape(node.inputs[0])
    if weight.ndim != 4 or source is None:
        return weight
    min_ort = options.carriers.min_ort
    blocks = chosen_blocks(window_of(node), source, groups_of(node), Runtime.ONNXRUNTIME, min_ort)
    return weight if blocks is None else as_blocks(weight, blocks)
