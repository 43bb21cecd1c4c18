"""What rounding a layer's weights to b bits costs the network's answer.

By the posterior N(w, s^2), s by weight:

    S(b) = 1/2 sum of (w - Q(w))^2 / s^2      nats: KL(N(Q(w), s^2) || N(w, s^2))

with Q the nearest integers at the scales that the export takes. With a Laplace posterior 1/s^2 is
the Hessian's diagonal and the prior's precision: the diagonal form of HAWQ's sensitivity.

By moments: the layer alone is rounded as the export rounds it, and the change of the network's
output is measured (`answers`) at MEASURED bits. Finer steps scale the last of these by the ratio of
the layer's own output errors e'He (`moments`), to which small changes of the answer are linear.
Source: Graves 2011, "Practical variational inference", section 5 (the divergence); Dong et al.
2020, HAWQ-V2, section 3 (sum of second-order terms over layers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.quantize.answers import Distance
from deploykit.quantize.bits import WeightBits, bits_by_layer, carriers_of
from deploykit.quantize.blocking import blocking_of
from deploykit.quantize.compensation import output_error
from deploykit.quantize.nodes import parameter
from deploykit.quantize.planning import Calibrated
from deploykit.quantize.rounded_layers import RoundedLayers, real_weight, rounded_network
from deploykit.quantize.structure import Layer
from deploykit.quantize.tied import joint_moments
from deploykit.quantize.weights import round_weights
from deploykit.spec.allocation import ALLOCATED_BITS, LayerChoices
from deploykit.spec.arrays import Float64Array, Tensors
from deploykit.spec.carriers import CarrierOptions
from deploykit.spec.inputs import GraphInputs, some_samples
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.parallel import computed_ahead

MEASURED = (2, 3, 4)
"""Bits at which the network's output is looked at; from the last on errors are small."""
SAMPLES = 128
"""Of calibration data, on which it is."""
AS_GIVEN, AS_ASKED = "as given", "as asked"
"""Why a weight's bits are not free."""

Sensitivities = Mapping[str, Mapping[int, float]]
"""By name of a weight's first layer, S by bits."""


def weight_groups(calibrated: Calibrated) -> tuple[tuple[Layer, ...], ...]:
    """Layers by the weight that they share, in graph order; most are alone."""
    weighted = calibrated.weighted()
    return tuple(
        calibrated.tied[layer.name]
        for layer in weighted
        if calibrated.tied[layer.name][0].name == layer.name
    )


def layer_choices(
    calibrated: Calibrated,
    asked: WeightBits,
    formats: Collection[str],
    carriers: CarrierOptions,
    sensitivities: Sensitivities,
) -> tuple[LayerChoices, ...]:
    """Every weight of the network. asked: its layers are fixed, and so are given integers."""
    wide = bits_by_layer(calibrated.layers, calibrated.tied, asked, calibrated.trained)
    found = []
    for group in weight_groups(calibrated):
        first = group[0]
        weight = parameter(first.nodes[0], 1)
        fixed = fixed_bits(calibrated, group, asked)
        widths = ALLOCATED_BITS if not fixed else (wide_of(calibrated, first, wide),)
        sizes = {}
        for bits in widths:
            stored = carriers_of(first, bits, weight.shape, carriers)
            sizes[bits] = max(stored.of(fmt).size_bytes(weight.size) for fmt in formats)
        names = tuple(layer.name for layer in group)
        costs = sensitivities.get(first.name, {})
        found.append(LayerChoices(names, weight.size, sizes, costs, fixed))
    return tuple(found)


def wide_of(calibrated: Calibrated, layer: Layer, bits: Mapping[str, int]) -> int:
    """Bits of a layer that has no choice."""
    return calibrated.trained.get(layer.name, bits[layer.name])


def fixed_bits(calibrated: Calibrated, group: Sequence[Layer], asked: WeightBits) -> str:
    """Why a weight's bits are not free; empty where they are."""
    if any(layer.name in calibrated.trained for layer in group):
        return AS_GIVEN
    return AS_ASKED if any(layer.name in asked.layers for layer in group) else ""


def free_groups(calibrated: Calibrated, asked: WeightBits) -> tuple[tuple[Layer, ...], ...]:
    """The weights whose bits are to be chosen."""
    every = weight_groups(calibrated)
    return tuple(group for group in every if not fixed_bits(calibrated, group, asked))


def nothing_free(calibrated: Calibrated, asked: WeightBits) -> str:
    """Why `--bits auto` has nothing to choose, where no weight's bits are free."""
    fixed = Counter(fixed_bits(calibrated, group, asked) for group in weight_groups(calibrated))
    told = {AS_GIVEN: "came as integers, which are kept", AS_ASKED: "with bits that you name"}
    why = " and ".join(f"{count} {told[reason]}" for reason, count in fixed.items())
    return (
        f"--bits auto has no weights to choose bits for ({why or 'the network has none'}); leave "
        "it and its limit out"
    )


def lacking_variance(network: Network, groups: Sequence[Sequence[Layer]]) -> tuple[str, ...]:
    """Layers with a weight that has no spread, so that the posterior cannot say what it costs.

    Weights of zero need none beside others that have some.
    """
    spreads = {group[0].name: _variance(network, group[0]) for group in groups}
    if not any(spread is not None and spread.any() for spread in spreads.values()):
        return tuple(spreads)
    return tuple(
        group[0].name
        for group in groups
        if (spread := spreads[group[0].name]) is None
        or bool(((spread <= 0) & (parameter(group[0].nodes[0], 1) != 0)).any())
    )


def by_posterior(rounded: RoundedLayers, groups: Sequence[Sequence[Layer]]) -> Sensitivities:
    """S of the module's head, in nats. Every weight has to have a variance."""
    rounded.make([(group[0], bits) for group in groups for bits in ALLOCATED_BITS])
    found = {}
    for group in groups:
        first = group[0]
        weight, spread = parameter(first.nodes[0], 1), _variance(rounded.calibrated.network, first)
        if spread is None:
            raise QuantizationError(f"{first.name}: its weights have no variance")
        found[first.name] = {
            bits: _nats(weight, spread, rounded, first, bits) for bits in ALLOCATED_BITS
        }
    return found


def by_moments(
    rounded: RoundedLayers,
    groups: Sequence[Sequence[Layer]],
    inputs: GraphInputs,
    evaluate: FloatEvaluator,
    distance: Callable[[Tensors], Distance],
    progress: Callable[[int, int], None],
) -> Sensitivities:
    """The change of the output, see the module's head.

    inputs: [N, ...], of which the first are taken. distance: for the float network's outputs.
    """
    calibrated = rounded.calibrated
    few = some_samples(inputs, slice(SAMPLES))
    names = [str(value.name) for value in calibrated.network.model.graph.outputs]

    def outputs(network: Network) -> Tensors:
        found = evaluate(network, few)
        return {name: found[name] for name in names}

    rounded.make([(layer, bits) for group in groups for layer in group for bits in ALLOCATED_BITS])
    real = outputs(calibrated.network)
    measured = distance(real)

    def changed(one: tuple[Sequence[Layer], int]) -> float:
        group, bits = one
        plans = [(layer, rounded.at(layer, bits)) for layer in group]
        return measured(real, outputs(rounded_network(calibrated, plans)))

    wanted = [(group, bits) for group in groups for bits in MEASURED]
    found: dict[str, dict[int, float]] = {group[0].name: {} for group in groups}
    for done, ((group, bits), lost) in enumerate(
        zip(wanted, computed_ahead(changed, wanted), strict=True), start=1
    ):
        found[group[0].name][bits] = lost
        progress(done, len(wanted))
    last = MEASURED[-1]
    for group in groups:
        own = {bits: _own_error(rounded, group, bits) for bits in ALLOCATED_BITS if bits >= last}
        by_bits = found[group[0].name]
        for bits, error in own.items():
            by_bits[bits] = by_bits[last] * (error / own[last] if own[last] > 0 else 0.0)
    return found


def _own_error(rounded: RoundedLayers, group: Sequence[Layer], bits: int) -> float:
    """e'He over all outputs of the layers; their weights' squared error where H is unknown."""
    first = group[0]
    weight = parameter(first.nodes[0], 1)
    error = real_weight(rounded.at(first, bits)) - weight
    moments = joint_moments(group, rounded.calibrated.seen.moments)
    if moments is None:
        return float(np.square(error).sum())
    source = static_shape(first.nodes[0].inputs[0])
    assert source is not None
    blocks = blocking_of(weight, source[1]).split(error)
    return float(output_error(blocks, moments.blocks).sum())


def _nats(
    weight: Float64Array, spread: Float64Array, rounded: RoundedLayers, layer: Layer, bits: int
) -> float:
    plan = rounded.at(layer, bits).weight
    assert plan is not None
    scale = plan.scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = round_weights(weight, plan.scale, bits) * scale - weight
    moved = spread > 0
    return float(0.5 * (np.square(error[moved]) / spread[moved]).sum())


def _variance(network: Network, layer: Layer) -> Float64Array | None:
    held = layer.nodes[0].inputs[1]
    found = None if held is None else network.variance.get(str(held.name))
    return None if found is None else found.astype(np.float64)
