"""Activations of calibration samples, layer after layer: in the float network and as integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.quantize.layer_network import batch_of, layer_network, run_layer
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import GraphInputs, count_samples, named_inputs, some_samples
from deploykit.spec.network import FloatEvaluator, Network, input_names, static_shape
from deploykit.spec.plan import LayerPlan
from deploykit.spec.quantized import Quantization

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


def passed_inputs(
    network: Network,
    layers: Sequence[Layer],
    inputs: GraphInputs,
    chosen: Mapping[str, Quantization],
) -> dict[str, Passed]:
    """The network's inputs; of `inputs` [N, ...] the first whose activations fit BYTES_HELD."""
    count = min(count_samples(inputs), max(1, BYTES_HELD // _bytes_held(network, layers)))
    given = named_inputs(some_samples(inputs, slice(count)), input_names(network))
    return {name: _passed(values, values, chosen.get(name)) for name, values in given.items()}


def through(
    network: Network,
    layer: Layer,
    plan: LayerPlan,
    read: Mapping[str, Passed],
    chosen: Mapping[str, Quantization],
    evaluate: FloatEvaluator,
) -> Passed:
    """The layer's output in both networks, from what it reads in both."""
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
    batch = batch_of(network)
    real = run_layer(as_it_was, {name: one.real for name, one in read.items()}, evaluate, batch)
    given = {name: one.quantized for name, one in read.items()}
    wanted = run_layer(rounded, given, evaluate, batch)
    return _passed(real, wanted, chosen.get(layer.output))


def _passed(real: AnyArray, rounded: AnyArray, quantization: Quantization | None) -> Passed:
    if quantization is None:
        return Passed(real, rounded, None)
    return Passed(real, quantization.quantize(rounded), quantization)


def last_reader(layers: Sequence[Layer]) -> dict[str, int]:
    """By tensor, the index of the last layer that reads it."""
    return {name: index for index, layer in enumerate(layers) for name in layer.inputs}


def _bytes_held(network: Network, layers: Sequence[Layer]) -> int:
    """Per sample, at the layer where most is held: float32 and int8 of every tensor yet to read."""
    last = last_reader(layers)
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
