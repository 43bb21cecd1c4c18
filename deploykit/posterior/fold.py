"""Fold a posterior into a deterministic network: means as weights, closed gates as exact zeros."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from torch import nn

from deploykit.errors import ConfigError, DataError
from deploykit.posterior.activation_range import RANGE
from deploykit.posterior.architecture import ModuleFactory
from deploykit.posterior.batchnorm import (
    copy_running_statistics,
    reestimate_batchnorm,
    subtract_weight_noise,
)
from deploykit.posterior.evaluated import arithmetic_differences, evaluations
from deploykit.posterior.families import FAMILIES
from deploykit.posterior.family import Draws, EvalForward, Family
from deploykit.posterior.forward import prepared, require_arguments
from deploykit.posterior.loading import fill_absent, load_tensors
from deploykit.posterior.map_layers import require_told_apart, with_torch_orientation
from deploykit.posterior.mean_forward import closest, mean_difference, require_repeatable
from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec
from deploykit.posterior.pruning import apply_pruning, decide_pruning
from deploykit.posterior.recognise import Recognised, join_key, recognise
from deploykit.posterior.running import require_running
from deploykit.posterior.trace import output_layer
from deploykit.posterior.twins import Swapped, swap_layers
from deploykit.posterior.usage import as_used, seen_in
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.given import Given
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.posterior import Checkpoint, Folded, FoldReport, LayerPosterior, LayerPruning
from deploykit.spec.samples import Samples


def fold_posterior(
    checkpoint: Checkpoint,
    network: nn.Module | ModuleFactory,
    example_inputs: GraphInputs,
    pruning: PruneSpec = PruneSpec(),  # noqa: B008  frozen
    batchnorm: BatchNormMode = BatchNormMode.KEEP,
    calibration: Samples | None = None,
    families: Sequence[Family] = FAMILIES,
) -> Folded:
    """The posterior mean network, pruned and unpruned, with the variance of its parameters.

    network: the Bayesian network that was trained or its deterministic twin; never changed.
    example_inputs [N, ...], of the only argument or by name: on these the mean forward is compared
    and the output layer is found.
    calibration: what batch norm statistics are measured on; needed unless they are kept.
    families: the rows that the checkpoint is read by.
    """
    return mean_fold(checkpoint, network, example_inputs, batchnorm, calibration, families).pruned(
        pruning
    )


@dataclass(frozen=True)
class MeanFold:
    """A posterior mean network that was compared with its Bayesian one, ready to be pruned.

    unpruned: batch norm as in the file. difference, golden: from the Bayesian mean forward, None
    where there is none, or where `unpruned` is not what it computes.
    """

    checkpoint: Checkpoint
    recognised: Recognised
    posteriors: tuple[LayerPosterior, ...]
    unpruned: nn.Module
    difference: float | None
    golden: nn.Module | None
    example_inputs: GraphInputs
    batchnorm: BatchNormMode
    calibration: Samples | None

    def pruned(self, pruning: PruneSpec) -> Folded:
        """With the gates closed that the rule closes, and batch norm as it was asked for."""
        layers = self.posteriors
        _require_variance(self.checkpoint, self.recognised, pruning)
        decisions = decide_pruning(
            pruning, layers, output_layer(self.unpruned, self.example_inputs)
        )
        left = _pruned(layers, decisions)
        module = mean_network(self.unpruned, self.recognised, left, self.checkpoint)
        variance = variances(self.unpruned, layers)
        together = _drawn_together(self.recognised)
        module, unpruned = _batchnorm(
            self.batchnorm, module, self.unpruned, variance, self.calibration, together
        )
        report = FoldReport(
            families=self.recognised.families(),
            pruning=decisions,
            mean_difference=self.difference,
            batchnorm=self.batchnorm.value,
            arithmetic=arithmetic_differences(self.recognised.layers),
            precision={one.name: one.precision for one in layers if one.precision is not None},
        )
        return Folded(module, unpruned, variances(module, left), report, self.golden, given(layers))


def mean_fold(
    checkpoint: Checkpoint,
    network: nn.Module | ModuleFactory,
    example_inputs: GraphInputs,
    batchnorm: BatchNormMode,
    calibration: Samples | None,
    families: Sequence[Family],
) -> MeanFold:
    """All of `fold_posterior` that no pruning changes."""
    _require_calibration(batchnorm, calibration)
    original = network if isinstance(network, nn.Module) else network()
    require_arguments(original, example_inputs)
    saved = recognise(checkpoint, families)
    swapped = swap_layers(original, saved.layers)
    recognised = as_used(saved, swapped.module)
    posteriors = tuple(seen_in(swapped.module, layer.posterior()) for layer in recognised.layers)
    require_told_apart(original, recognised, swapped.layers)
    unpruned = mean_network(swapped.module, recognised, posteriors, checkpoint)
    require_running(original, unpruned, example_inputs, swapped.layers)
    require_repeatable(unpruned, example_inputs)
    bayesian = mean_forward(original, swapped, saved, posteriors, checkpoint)
    difference, golden = None, bayesian
    if bayesian is not None:
        candidates = [
            mean_network(unpruned, recognised, layers, checkpoint)
            if any(one is not other for one, other in zip(layers, posteriors, strict=True))
            else unpruned
            for layers in evaluations(recognised.layers, posteriors)
        ]
        own = closest(bayesian, candidates, example_inputs)
        difference = mean_difference(bayesian, own, example_inputs, swapped.layers)
        # A forward that closes gates has no golden output: it is not the unpruned network's.
        golden = bayesian if own is unpruned else None
    return MeanFold(
        checkpoint, recognised, posteriors, unpruned, difference, golden, example_inputs, batchnorm,
        calibration,
    )  # fmt: skip


def given(posteriors: Sequence[LayerPosterior]) -> Given:
    """The grids that the layers were trained on."""
    stated = [(one.name, one.precision) for one in posteriors if one.precision is not None]
    return Given(
        {join_key(name, "weight"): held.grid for name, held in stated if held.grid is not None},
        {
            join_key(name, RANGE): held.activation.grid
            for name, held in stated
            if held.activation is not None and held.activation.grid is not None
        },
    )


def mean_network(
    twin: nn.Module,
    recognised: Recognised,
    posteriors: Sequence[LayerPosterior],
    checkpoint: Checkpoint,
) -> nn.Module:
    """A copy of the twin that holds the means and every plain tensor of the checkpoint."""
    result = prepared(copy.deepcopy(twin))
    tensors = with_torch_orientation(twin, recognised, twin_tensors(recognised, posteriors))
    load_tensors(result, tensors, str(checkpoint.path))
    return result


def twin_tensors(
    recognised: Recognised, posteriors: Sequence[LayerPosterior]
) -> Mapping[str, AnyArray]:
    """The twin's whole state dict: plain tensors as they are, layers at their mean."""
    means: dict[str, AnyArray] = {
        join_key(layer.name, key): value
        for layer in posteriors
        for key, value in layer.mean.items()
    }
    return dict(recognised.plain) | means


def variances(
    module: nn.Module, posteriors: Sequence[LayerPosterior]
) -> Mapping[str, Float32Array]:
    """Variance by parameter name, for every parameter of a layer with a matrix or kernel.

    Zero where the layer is deterministic. Batch norms and the like have no entry.
    """
    known = {
        join_key(layer.name, key): value
        for layer in posteriors
        for key, value in layer.variance.items()
    }
    result: dict[str, Float32Array] = {}
    for name, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if not any(parameter.ndim >= 2 for parameter in own.values()):
            continue
        for key, parameter in own.items():
            full = join_key(name, key)
            result[full] = known.get(full, np.zeros(tuple(parameter.shape), np.float32))
    return result


def mean_forward(
    original: nn.Module,
    swapped: Swapped,
    saved: Recognised,
    posteriors: Sequence[LayerPosterior],
    checkpoint: Checkpoint,
) -> nn.Module | None:
    """The Bayesian network holding the checkpoint, in which a sampled layer draws no noise.

    saved: all that the checkpoint holds, used or not. A layer that the network builds as a torch
    layer already holds its mean. None where nothing was swapped, or where a family's sampled
    forward cannot be silenced.
    """
    if not swapped.layers:
        return None
    bayesian = prepared(copy.deepcopy(original))
    held = bayesian.state_dict().keys()
    tensors: dict[str, AnyArray] = dict(saved.plain)
    for layer, posterior in zip(saved.layers, posteriors, strict=True):
        family = layer.family
        own: Mapping[str, AnyArray] = layer.tensors
        if layer.name not in swapped.layers:
            own = posterior.mean
        elif family.silenced is not None:
            # What silencing leaves out, some releases of a library hold and others do not.
            kept = {k: v for k, v in layer.tensors.items() if join_key(layer.name, k) in held}
            own = kept | dict(family.silenced(layer.tensors))
        elif family.eval_forward in {EvalForward.SAMPLED, EvalForward.ROUNDED}:
            return None
        fill_absent(bayesian.get_submodule(layer.name), own)
        tensors |= {join_key(layer.name, key): value for key, value in own.items()}
    load_tensors(bayesian, tensors, str(checkpoint.path))
    return bayesian


def _pruned(
    posteriors: Sequence[LayerPosterior], decisions: Sequence[LayerPruning]
) -> tuple[LayerPosterior, ...]:
    by_layer = {decision.layer: decision for decision in decisions}
    return tuple(
        apply_pruning(layer, by_layer[layer.name]) if layer.name in by_layer else layer
        for layer in posteriors
    )


def _require_variance(checkpoint: Checkpoint, saved: Recognised, pruning: PruneSpec) -> None:
    why = checkpoint.unknown_variance
    if why is not None and not saved.layers and pruning.rule is not PruneRule.NONE:
        raise ConfigError(
            f"{checkpoint.path}: --prune-rule {pruning.rule.value} needs the variance of the "
            f"weights, and {why}; give --prune-rule none, which exports the mean"
        )


def _require_calibration(mode: BatchNormMode, calibration: Samples | None) -> None:
    if mode is BatchNormMode.KEEP:
        return
    if calibration is None or len(calibration) == 0:
        raise ConfigError(f"--batchnorm {mode.value} measures on calibration data; give --data")
    arrays = calibration.inputs
    held = arrays.values() if isinstance(arrays, Mapping) else (arrays,)
    if not all(np.isfinite(values).all() for values in held):
        raise DataError("the calibration inputs hold NaN or infinity; clean them first")


def _drawn_together(recognised: Recognised) -> frozenset[str]:
    """Layers of which training drew one set of weights for a whole batch."""
    return frozenset(
        layer.name for layer in recognised.layers if layer.family.draws is Draws.EVERY_BATCH
    )


def _batchnorm(
    mode: BatchNormMode,
    module: nn.Module,
    unpruned: nn.Module,
    variance: Mapping[str, Float32Array],
    calibration: Samples | None,
    together: frozenset[str],
) -> tuple[nn.Module, nn.Module]:
    """Pruned and unpruned network with their batch norm statistics as the mode asks."""
    if mode is BatchNormMode.KEEP or calibration is None:
        return module, unpruned
    inputs = calibration.inputs
    match mode:
        case BatchNormMode.REESTIMATE:
            return reestimate_batchnorm(module, inputs), reestimate_batchnorm(unpruned, inputs)
        case BatchNormMode.ANALYTIC:
            denoised = subtract_weight_noise(unpruned, variance, inputs, together=together)
            return copy_running_statistics(denoised, module), denoised
        case _:
            assert_never(mode)
