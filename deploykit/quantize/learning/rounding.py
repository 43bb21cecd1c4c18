"""What a block of layers learns, as the plan has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploykit.quantize.clipping import FULL_BITS
from deploykit.quantize.learning.functions import computes
from deploykit.quantize.learning.reconstruction import Learned, Start, Stretch, learned_block
from deploykit.quantize.nodes import parameter
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.passing import Passed
from deploykit.quantize.structure import Layer
from deploykit.quantize.weighted import largest_pair, scale_floor
from deploykit.quantize.weights import round_bias
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.plan import LayerPlan
from deploykit.spec.quantized import Quantization, int_range


@dataclass(frozen=True)
class BlockLearner:
    """A `sequential.Learns`. fixed: layers whose integers stay.

    Blocks of what `functions` cannot compute, and of 8 bits, stay as they are.
    """

    chosen: Mapping[str, Quantization]
    options: QuantizationOptions
    fixed: Collection[str]

    def __call__(
        self,
        block: Sequence[Layer],
        plans: Sequence[LayerPlan],
        source: Passed,
        target: Passed,
        samples: int,
    ) -> tuple[LayerPlan, ...] | None:
        planned = {plan.name: plan for plan in plans}
        starts = _starts(block, planned, self.chosen, self.options, self.fixed)
        stretch = _stretch(block, starts, self.chosen)
        if stretch is None:
            return None
        found = learned_block(
            stretch, _by_sample(source.quantized, samples), _by_sample(target.real, samples)
        )
        if found is None:
            return None
        return tuple(
            _with(planned[layer.name], layer, found[layer.name], self.chosen, self.options)
            if layer.name in found
            else planned[layer.name]
            for layer in block
        )


def _by_sample(values: AnyArray, samples: int) -> Float32Array:
    """[N, rows, ...]"""
    return np.ascontiguousarray(values.reshape(samples, -1, *values.shape[1:]), np.float32)


def _stretch(
    block: Sequence[Layer], starts: Mapping[str, Start], chosen: Mapping[str, Quantization]
) -> Stretch | None:
    """None where nothing of the block can learn."""
    if not any(start.free for start in starts.values()):
        return None
    made = {layer.output for layer in block}
    read = {name for layer in block for name in layer.inputs} - made
    functions = {layer.name: computes(layer) for layer in block}
    known = {name: function for name, function in functions.items() if function is not None}
    if len(read) != 1 or len(known) < len(block) or not made | read <= set(chosen):
        return None
    return Stretch(block, known, {layer.name: chosen[layer.output] for layer in block}, starts)


def _starts(
    block: Sequence[Layer],
    planned: Mapping[str, LayerPlan],
    chosen: Mapping[str, Quantization],
    options: QuantizationOptions,
    fixed: Collection[str],
) -> dict[str, Start]:
    starts = {}
    for layer in block:
        plan = planned[layer.name]
        if layer.kind not in WEIGHTED or plan.weight is None or plan.bias is None:
            continue
        bits = plan.weight.bits
        step = chosen[layer.inputs[0]].scale * plan.weight.scale.astype(np.float64)
        found = Learned(plan.weight.values, plan.weight.scale, plan.bias * step)
        starts[layer.name] = Start(
            parameter(layer.nodes[0], 1),
            found,
            np.asarray(scale_floor((layer,), chosen, bits)),
            int_range(bits)[1],
            options.rounding.steps,
            bits < FULL_BITS and layer.name not in fixed,
        )
    return starts


def _with(
    plan: LayerPlan,
    layer: Layer,
    learned: Learned,
    chosen: Mapping[str, Quantization],
    options: QuantizationOptions,
) -> LayerPlan:
    assert plan.weight is not None
    bias: Float64Array = parameter(layer.nodes[0], 2)
    moved = (learned.bias - bias).astype(np.float32)
    values, scale = learned.values, learned.scale
    pairs = replace(plan.weight.pairs, largest=largest_pair(layer, values, options))
    return replace(
        plan,
        weight=replace(plan.weight, scale=scale, values=values, pairs=pairs),
        bias=round_bias(
            layer.name,
            bias + moved,
            values,
            chosen[layer.inputs[0]].scale,
            scale,
            plan.weight.bits,
        ),
        output_shift=moved,
    )
