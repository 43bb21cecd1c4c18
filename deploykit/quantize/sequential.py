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
from dataclasses import dataclass

import numpy as np

from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.evidence import Evidence, OutputMeans
from deploykit.quantize.layer_network import layer_network
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.nodes import parameter, window_of
from deploykit.quantize.operators import WEIGHTED, Kind
from deploykit.quantize.patches import sample_patches, tap_means
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, FloatArray
from deploykit.spec.inputs import GraphInputs, count_samples, named_inputs, some_samples
from deploykit.spec.network import FloatEvaluator, Network, input_names, static_shape
from deploykit.spec.plan import LayerPlan
from deploykit.spec.quantized import Quantization

POSITIONS = 8192
"""Output positions looked at per layer, over all samples."""
HOLD = 0.3
"""lambda; see above."""
BYTES_HELD = 2**29
"""Of activations between layers; more samples than fit are left out."""


@dataclass(frozen=True)
class Passed:
    """One tensor of all samples: in the float network, and as the quantized one's integers.

    Whole numbers are the same in both.
    """

    real: AnyArray
    integers: AnyArray
    quantization: Quantization | None

    @property
    def quantized(self) -> AnyArray:
        """The real numbers that the integers stand for."""
        held = self.quantization
        return self.integers if held is None else held.dequantize(self.integers)


def plan_in_sequence(
    network: Network,
    layers: Sequence[Layer],
    inputs: GraphInputs,
    chosen: Mapping[str, Quantization],
    evaluate: FloatEvaluator,
    plan_layer: Callable[[Layer, Evidence | None], LayerPlan],
    progress: Callable[[int, int], None],
) -> tuple[LayerPlan, ...]:
    """The plan of every layer, in graph order; `plan_layer` gets evidence where there are weights.

    Of `inputs` [N, ...] the first samples whose activations fit BYTES_HELD are used.
    """
    last = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    count = min(count_samples(inputs), max(1, BYTES_HELD // _bytes_held(network, layers, last)))
    given = named_inputs(some_samples(inputs, slice(count)), input_names(network))
    held = {name: _passed(values, values, chosen.get(name)) for name, values in given.items()}
    plans = []
    for index, layer in enumerate(layers):
        read = {name: held[name] for name in layer.inputs}
        weighted = layer.kind in WEIGHTED
        plan = plan_layer(layer, _evidence(layer, read[layer.inputs[0]]) if weighted else None)
        plans.append(plan)
        held = {name: one for name, one in held.items() if last.get(name, -1) > index}
        if layer.output in last:
            held[layer.output] = _through(network, layer, plan, read, chosen, evaluate)
        progress(index + 1, len(layers))
    return tuple(plans)


def _through(
    network: Network,
    layer: Layer,
    plan: LayerPlan,
    read: Mapping[str, Passed],
    chosen: Mapping[str, Quantization],
    evaluate: FloatEvaluator,
) -> Passed:
    """The layer's output in both networks."""
    as_it_was = layer_network(network, layer)
    rounded = as_it_was
    if plan.weight is not None and plan.bias is not None:
        scale = plan.weight.scale.astype(np.float64)
        along = scale.reshape((-1,) + (1,) * (plan.weight.values.ndim - 1))
        step = scale * np.float64(np.float32(chosen[layer.inputs[0]].scale))
        rounded = layer_network(
            network, layer, (plan.weight.values * along).astype(np.float32),
            (plan.bias * step).astype(np.float32),
        )  # fmt: skip
    real = evaluate(as_it_was, {name: one.real for name, one in read.items()})[layer.output]
    wanted = evaluate(rounded, {name: one.quantized for name, one in read.items()})[layer.output]
    return _passed(real, wanted, chosen.get(layer.output))


def _passed(real: AnyArray, rounded: AnyArray, quantization: Quantization | None) -> Passed:
    if quantization is None:
        return Passed(real, rounded, None)
    return Passed(real, quantization.quantize(rounded), quantization)


def _evidence(layer: Layer, read: Passed) -> Evidence:
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

    real, rounded = patches(read.real), patches(quantized)
    positions = real.shape[1]
    blocks = rounded.transpose(0, 2, 1) @ rounded / np.float32(positions)
    lost = np.asarray(rounded.transpose(0, 2, 1) @ (real - rounded), np.float32) / positions
    means = OutputMeans(
        _products(weight, tap_means(read.real, window, output[2:])),
        tap_means(quantized, window, output[2:]),
    )
    target = moved_weight(weight, blocking, blocks, lost)
    return Evidence(InputMoments(blocking, blocks, positions), target, means)


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


def _bytes_held(network: Network, layers: Sequence[Layer], last: Mapping[str, int]) -> int:
    """Per sample, at the layer where most is held: float32 and int8 of every tensor yet to read."""
    sizes = {
        str(value.name): int(np.prod(static_shape(value) or (0,), dtype=np.int64))
        for node in network.model.graph
        for value in node.outputs
    }
    made = {layer.output: index for index, layer in enumerate(layers)}
    most = max(
        (
            sum(sizes[name] for name, at in made.items() if at <= index <= last.get(name, at))
            for index in range(len(layers))
        ),
        default=0,
    )
    return max(1, 5 * most)
