"""Layer after layer: each rounds its weights on what the layers before it, rounded, give it.

    minimise |W x - V z|^2 + lambda sum of D[i] (V[i] - W[i])^2
    V = W + W E[(x - z) z'] (H + lambda D)^-1        H = E[z z'], D = diag(H) + its mean

x: the layer's inputs in the float network; z: in the quantized one, both about their means, which
the bias brings together. V is what the integers then approximate under H: so a layer makes up for
what rounding did before it, as far as its inputs still tell. lambda holds V near W where few
positions were seen.
Source: Frantar et al. 2023, GPTQ, section 4.2 (inputs of the partially quantized network); Li et
al. 2025, GPTAQ, section 4 (the float network's outputs as the target); Nagel et al. 2019,
"Data-free quantization", section 4.2 (bias).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.blocks import find_blocks
from deploykit.quantize.evidence import Evidence, OutputMeans
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.nodes import parameter, window_of
from deploykit.quantize.operators import WEIGHTED, Kind
from deploykit.quantize.passing import Passed, last_reader, passed_inputs, through
from deploykit.quantize.patches import sample_patches, tap_means
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import Float32Array, Float64Array, FloatArray
from deploykit.spec.inputs import GraphInputs, count_samples
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.plan import LayerPlan
from deploykit.spec.quantized import Quantization

POSITIONS = 8192
"""Output positions looked at per layer, over all samples."""
HOLD = 0.3
"""lambda; see above."""


class Learns(Protocol):
    """What learns the rounding of a block, once its layers are planned."""

    def __call__(
        self,
        block: Sequence[Layer],
        plans: Sequence[LayerPlan],
        source: Passed,
        target: Passed,
        samples: int,
    ) -> tuple[LayerPlan, ...] | None:
        """Other plans; None where these stay.

        source: what the block's first layer reads; target: its output under these plans; of
        so many samples.
        """
        ...


def plan_in_sequence(
    network: Network,
    layers: Sequence[Layer],
    inputs: GraphInputs,
    chosen: Mapping[str, Quantization],
    evaluate: FloatEvaluator,
    plan_layer: Callable[[Layer, Evidence | None], LayerPlan],
    learn: Learns | None,
    progress: Callable[[int, int], None],
) -> tuple[LayerPlan, ...]:
    """The plan of every layer, in graph order; `plan_layer` gets evidence where there are weights.

    Of `inputs` [N, ...] as many samples are used as `passing` holds.
    """
    last = last_reader(layers)
    held = passed_inputs(network, layers, inputs, chosen)
    count = count_samples({name: one.real for name, one in held.items()})
    plans: list[LayerPlan] = []

    def give(index: int, plan: LayerPlan, held: Mapping[str, Passed]) -> dict[str, Passed]:
        """What is held behind a layer."""
        layer = layers[index]
        kept = {name: one for name, one in held.items() if last.get(name, -1) > index}
        if layer.output in last or learn is not None:
            read = {name: held[name] for name in layer.inputs}
            kept[layer.output] = through(network, layer, plan, read, chosen, evaluate)
        return kept

    for block in find_blocks(layers, tuple(held)):
        begin, before = len(plans), held
        for index, layer in enumerate(block, start=begin):
            weighted = layer.kind in WEIGHTED
            evidence = layer_evidence(layer, held[layer.inputs[0]]) if weighted else None
            plans.append(plan_layer(layer, evidence))
            held = give(index, plans[index], held)
            progress(index + 1, len(layers))
        if learn is not None:
            source, target = before[block[0].inputs[0]], held[block[-1].output]
            learned = learn(block, plans[begin:], source, target, count)
            if learned is not None:
                plans[begin:], held = learned, before
                for index in range(begin, len(plans)):
                    held = give(index, plans[index], held)
    return tuple(plans)


def layer_evidence(layer: Layer, read: Passed) -> Evidence:
    """What a layer with weights is rounded by. read: its input in both networks."""
    node = layer.nodes[0]
    weight, output = parameter(node, 1), static_shape(node.outputs[0])
    assert output is not None
    window = window_of(node) if layer.kind is Kind.CONV else None
    blocking = blocking_of(weight, read.real.shape[1])
    quantized = read.quantized

    def patches(values: FloatArray) -> Float32Array:
        """[B, P, n] about their means."""
        split = blocking.split_inputs(sample_patches(values, window, output[2:], POSITIONS, 0))
        centred = split - split.mean(axis=1, keepdims=True, dtype=np.float64)
        return np.asarray(centred, np.float32)

    real, rounded = _of_one_size(patches(read.real), patches(quantized))
    positions = real.shape[1]
    blocks = rounded.transpose(0, 2, 1) @ rounded / np.float32(positions)
    lost = np.asarray(rounded.transpose(0, 2, 1) @ (real - rounded), np.float32) / positions
    means = OutputMeans(
        _products(weight, tap_means(read.real, window, output[2:])),
        tap_means(quantized, window, output[2:]),
    )
    target = moved_weight(weight, blocking, blocks, lost)
    return Evidence(InputMoments(blocking, blocks, positions), target, means)


def _of_one_size(real: Float32Array, rounded: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Both over a power of two, so that no square overflows; the rounding looks at ratios alone."""
    largest = max(float(np.abs(real).max(initial=0.0)), float(np.abs(rounded).max(initial=0.0)))
    if not largest > 0:
        return real, rounded
    _, exponent = np.frexp(largest)
    return np.ldexp(real, -exponent), np.ldexp(rounded, -exponent)


def moved_weight(
    weight: Float64Array, blocking: Blocking, moments: Float32Array, lost: FloatArray
) -> Float64Array:
    """V of this module's head, [O, I, ...].

    moments: E[z z'], lost: E[z (x - z)'], [B, n, n]. Where a block's inputs never vary, W stays.
    """
    every = np.arange(moments.shape[1])
    held = moments.astype(np.float64)
    diagonal = held[:, every, every]
    slack = HOLD * (diagonal + diagonal.mean(axis=1, keepdims=True))
    varies = diagonal.max(axis=1) > 0
    held[:, every, every] += np.where(varies[:, None], slack, 1.0)
    rows = blocking.split(weight)
    wanted = np.where(varies[:, None, None], lost.astype(np.float64), 0.0)
    moved = np.linalg.solve(held, wanted @ rows.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.asarray(blocking.join(rows + moved, weight.shape))


def _products(weight: Float64Array, means: Float64Array) -> Float64Array:
    """[O]: weights [O, I/groups, ...] times means [I, taps]."""
    groups = len(means) // weight.shape[1]
    rows = weight.reshape(groups, len(weight) // groups, -1)
    return np.asarray((rows @ means.reshape(groups, -1, 1)).reshape(len(weight)))
