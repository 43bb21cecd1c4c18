"""plan_quantization: every decision about integers, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.quantize.bits import bits_by_layer
from deploykit.quantize.clipping import FULL_BITS
from deploykit.quantize.constants import bound_operand, constant_operand
from deploykit.quantize.dynamic import check_dynamic
from deploykit.quantize.evidence import Evidence, InputMeans
from deploykit.quantize.given import (
    activation_uses,
    fits_runtimes,
    given_integers,
    group_grid,
    trained_bits,
    weight_uses,
)
from deploykit.quantize.hidden import coarser_sources, needed_ranges
from deploykit.quantize.in_float import in_float_order
from deploykit.quantize.layer_plan import layer_plan, quantized_name
from deploykit.quantize.moments import compensates
from deploykit.quantize.nodes import parameter
from deploykit.quantize.observe import Observations, observe_tensors
from deploykit.quantize.operators import BINARY, WEIGHTED, Kind
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.sequential import Learns, plan_in_sequence
from deploykit.quantize.settling import Fixed, Runners, settle_scales
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import Layer, build_structure, tails
from deploykit.quantize.tied import Tied, joint_moments, tied_layers
from deploykit.quantize.wanted import wanted_quantization
from deploykit.quantize.weighted import weighted_plan
from deploykit.quantize.whole_numbers import integer_table, table_histograms
from deploykit.spec.given import GivenIntegers
from deploykit.spec.network import Network
from deploykit.spec.parallel import in_parallel
from deploykit.spec.plan import (
    ConstantPlan,
    GridUse,
    LayerPlan,
    Proof,
    QuantPlan,
    Rounding,
)
from deploykit.spec.quantized import Batch, IoType, Quantization
from deploykit.spec.samples import Samples
from deploykit.spec.whole_numbers import real_inputs, whole_outputs


@dataclass(frozen=True)
class Calibrated:
    """All that planning decides before weights are rounded, the same whatever their bits are.

    chosen: quantization by float tensor. held: integers that training chose, by layer; fitting:
    whether their scales suit runtimes; trained: their bits. seen: what calibration data showed.
    """

    network: Network
    samples: Samples
    layers: tuple[Layer, ...]
    tied: Tied
    seen: Observations
    chosen: Mapping[str, Quantization]
    constants: Mapping[str, ConstantPlan | None]
    proofs: tuple[Proof, ...]
    held: Mapping[str, GivenIntegers]
    fitting: Mapping[str, bool]
    trained: Mapping[str, int]
    given: tuple[GridUse, ...]

    def weighted(self) -> tuple[Layer, ...]:
        """The layers that have weights."""
        return tuple(layer for layer in self.layers if layer.kind in WEIGHTED)

    def planned(
        self, layer: Layer, bits: int, options: QuantizationOptions, own: Evidence | None = None
    ) -> LayerPlan:
        """One layer's plan. bits: of its weights, where it has some that training did not fix.

        own: what the quantized network gives the layer, in sequence.
        """
        if layer.kind in WEIGHTED:
            held = self.held[layer.name] if self.fitting.get(layer.name) else None
            found = _evidence(layer, self.tied[layer.name], self.seen, own)
            if options.rounding is Rounding.NEAREST:
                found = replace(found, moments=None)
            wide = bits if held is None else self.trained[layer.name]
            return weighted_plan(
                self.network, layer, self.tied[layer.name], self.chosen, found, options, held, wide
            )
        into = self.chosen.get(layer.output)
        return _plain_plan(self.network, layer, self.constants.get(layer.name), into)


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
    calibrated = calibrate(network, samples, options, runners, progress)
    return rounded_plan(calibrated, options, runners, progress)


def calibrate(
    network: Network,
    samples: Samples,
    options: QuantizationOptions,
    runners: Runners,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibrated:
    """Scale and zero point of every tensor, and what rounding needs to know of layers' inputs.

    options: its rounding says how much that is; its bits are checked. Raises as plan_quantization.
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
    bits_by_layer(layers, tied, options.bits, trained)  # an unknown name is told before data run
    # In sequence layers measure their own inputs, but those of weights that others use too.
    compensated = [
        layer
        for layer in weighted
        if options.rounding is not Rounding.NEAREST
        and compensates(layer)
        and layer.name not in held
        and (options.rounding is Rounding.COMPENSATED or len(tied[layer.name]) > 1)
    ]
    seen = observe_tensors(
        network, makers, read, compensated, samples.inputs, runners.evaluate, progress
    )
    histograms = {**seen.histograms, **table_histograms(layers)}
    chosen: dict[str, Quantization] = {}
    kept = {
        group: group_grid(group, layers, sources, network.given, options.io) for group in groups
    }
    on_grid = {name for group, grid in kept.items() if grid is not None for name in group.tensors}
    grids = {name: grid for name, grid in network.given.activations.items() if name in on_grid}
    needed = needed_ranges(layers, groups, grids)
    for group, grid in kept.items():
        quantization = grid or wanted_quantization(
            group, layers, sources, histograms, options.calibration, needed.get(group.tensors[0])
        )
        chosen.update(dict.fromkeys(group.tensors, quantization))
    constants = {
        layer.name: constant_operand(
            layer,
            [chosen[name] for name in layer.inputs],
            chosen[layer.output],
            network.given.constants,
        )
        for layer in layers
        if layer.kind in BINARY
    }
    quantized = [layer for layer in layers if layer.kind is not Kind.ARG_MAX]
    proofs = settle_scales(quantized, groups, chosen, constants, runners, Fixed(on_grid, held))
    fitting = {
        name: fits_runtimes(integers, tied[name], chosen, trained[name])
        for name, integers in held.items()
    }

    constants.update(
        {layer.name: bound_operand(layer, chosen[layer.output]) for layer in quantized}
        | {layer.name: constants[layer.name] for layer in quantized if layer.kind in BINARY}
    )

    return Calibrated(
        network, samples, layers, tied, seen, chosen, constants, proofs, held, fitting, trained,
        (
            *weight_uses(layers, fitting, tied, network.given),
            *activation_uses(
                groups,
                layers,
                sources,
                chosen,
                network.given,
                options.io,
                {str(node.outputs[0].name) for node in tails(network)},
                coarser_sources(layers, needed, chosen),
            ),
        ),
    )  # fmt: skip


def rounded_plan(
    calibrated: Calibrated,
    options: QuantizationOptions,
    runners: Runners,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuantPlan:
    """The integers of every weight. options: of its rounding, what calibrate was told or less."""
    layers = calibrated.layers
    bits = bits_by_layer(layers, calibrated.tied, options.bits, calibrated.trained)

    def planned(layer: Layer, evidence: Evidence | None = None) -> LayerPlan:
        return calibrated.planned(layer, bits.get(layer.name, FULL_BITS), options, evidence)

    if options.rounding.in_sequence:
        plans = plan_in_sequence(
            calibrated.network, layers, calibrated.samples.inputs, calibrated.chosen,
            runners.evaluate, planned, _learner(calibrated, options), progress,
        )  # fmt: skip
    else:
        plans = tuple(in_parallel(planned, layers))
    return assembled(calibrated, options, plans)


def _learner(calibrated: Calibrated, options: QuantizationOptions) -> Learns | None:
    if options.rounding is not Rounding.LEARNED:
        return None
    from deploykit.quantize.learning.rounding import BlockLearner

    shared = {name for name, sharing in calibrated.tied.items() if len(sharing) > 1}
    return BlockLearner(calibrated.chosen, options, shared | set(calibrated.held))


def assembled(
    calibrated: Calibrated, options: QuantizationOptions, plans: tuple[LayerPlan, ...]
) -> QuantPlan:
    """The whole plan, from the plan of every layer in graph order."""
    network, chosen = calibrated.network, calibrated.chosen
    quantized = [layer for layer in calibrated.layers if layer.kind is not Kind.ARG_MAX]
    return QuantPlan(
        {
            quantized_name(network, name): chosen[name]
            for name in (*real_inputs(network), *(layer.output for layer in quantized))
        },
        plans,
        options.calibration.value,
        len(calibrated.samples),
        options.io,
        options.rounding,
        calibrated.proofs,
        options.target,
        options.batch,
        calibrated.given,
        options.carriers.min_ort,
        options.weight_range,
        in_float_order(network),
    )


def _evidence(
    layer: Layer, tied: Sequence[Layer], seen: Observations, own: Evidence | None
) -> Evidence:
    """own: what the quantized network gives the layer; only its means where weights are shared."""
    if own is not None and len(tied) == 1:
        return own if compensates(layer) else replace(own, moments=None)
    weight = parameter(layer.nodes[0], 1)
    means = InputMeans(seen.means[layer.inputs[0]].astype(np.float32)) if own is None else own.means
    return Evidence(joint_moments(tied, seen.moments), weight, means)


def _plain_plan(
    network: Network, layer: Layer, constant: ConstantPlan | None, into: Quantization | None
) -> LayerPlan:
    planned = layer_plan(network, layer, constant)
    if layer.kind is Kind.EMBEDDING and into is not None:
        return replace(planned, table=integer_table(layer, into))
    return planned
