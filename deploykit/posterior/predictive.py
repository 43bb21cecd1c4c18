"""What collapsing the posterior to its mean costs: class probabilities against Monte Carlo."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from deploykit.errors import DataError
from deploykit.posterior.families import FAMILIES, Family
from deploykit.posterior.fold import mean_network
from deploykit.posterior.forward import BATCH, output_types, run
from deploykit.posterior.options import BatchNormMode
from deploykit.posterior.recognise import Recognised, join_key, recognise
from deploykit.posterior.usage import as_used, seen_in
from deploykit.spec.arrays import Float64Array
from deploykit.spec.confidence import metrics, probabilities
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.posterior import Checkpoint, Folded
from deploykit.spec.samples import Samples

DRAWS = 16

Progress = Callable[[int, int], None]
"""Called with (draws done, draws in all)."""


def compare_monte_carlo(
    folded: Folded,
    checkpoint: Checkpoint,
    samples: Samples,
    draws: int = DRAWS,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
    families: Sequence[Family] = FAMILIES,
) -> Folded:
    """The same network, its report completed with the Monte-Carlo predictive.

    The predictive averages class probabilities over draws from the real posterior, with the batch
    norm statistics of the checkpoint; the mean network is compared under the same statistics.
    Metrics, where labels are given: monte_carlo, mean, pruned (batch norm as asked), and
    mean_batchnorm where batch norm was not kept. Without labels, a network whose output is not
    [N, K] has no class probabilities, and its report stays as it is; so does that of a network of
    several outputs, or of one that answers in whole numbers.
    """
    recognised = as_used(recognise(checkpoint, families), folded.unpruned)
    if not recognised.layers and samples.labels is None:
        return folded
    posteriors = [seen_in(folded.unpruned, layer.posterior()) for layer in recognised.layers]
    mean = mean_network(folded.unpruned, recognised, posteriors, checkpoint)
    types = output_types(mean, samples.inputs)
    if len(types) > 1 and samples.labels is not None:
        raise DataError(
            f"the network has {len(types)} outputs ({', '.join(types)}), so its answers cannot be "
            "held against `labels`: leave them out of --eval-data"
        )
    if len(types) > 1 or not all(dtype.is_floating_point for dtype in types.values()):
        return folded
    outputs = run(mean, samples.inputs, batch)
    if outputs.ndim != 2 and samples.labels is None:
        return folded
    by_name = {"mean": probabilities(outputs)}
    by_name["pruned"] = probabilities(run(folded.module, samples.inputs, batch))
    if folded.report.batchnorm != BatchNormMode.KEEP.value:
        by_name["mean_batchnorm"] = probabilities(run(folded.unpruned, samples.inputs, batch))
    report = replace(folded.report, compared_inputs=len(samples))
    if recognised.layers:
        predictive = monte_carlo(mean, recognised, samples.inputs, draws, seed, batch, progress)
        by_name["monte_carlo"] = predictive
        largest = float(np.abs(predictive - by_name["mean"]).max(initial=0.0))
        report = replace(report, monte_carlo_difference=largest, monte_carlo_samples=draws)
    if samples.labels is not None:
        labels = samples.labels
        measured = {name: metrics(values, labels) for name, values in by_name.items()}
        report = replace(report, metrics=measured)
    return replace(folded, report=report)


def predictive_of(
    folded: Folded,
    checkpoint: Checkpoint,
    families: Sequence[Family] = FAMILIES,
    draws: int = DRAWS,
    seed: int = 0,
) -> Callable[[GraphInputs, Progress], Float64Array] | None:
    """The Monte-Carlo predictive as a function of inputs; None where nothing has a posterior."""
    recognised = as_used(recognise(checkpoint, families), folded.unpruned)
    if not recognised.layers:
        return None
    posteriors = [seen_in(folded.unpruned, layer.posterior()) for layer in recognised.layers]
    mean = mean_network(folded.unpruned, recognised, posteriors, checkpoint)

    def predictive(inputs: GraphInputs, progress: Progress) -> Float64Array:
        return monte_carlo(mean, recognised, inputs, draws, seed, progress=progress)

    return predictive


def monte_carlo(
    mean: nn.Module,
    recognised: Recognised,
    inputs: GraphInputs,
    draws: int = DRAWS,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> Float64Array:
    """Class probabilities [N, K] averaged over networks drawn from the posterior.

    mean: the posterior mean network, whose plain layers every draw shares.
    """
    if draws < 1:
        raise DataError(f"a Monte-Carlo predictive needs at least 1 draw and got {draws}")
    generator = np.random.default_rng(seed)
    network = copy.deepcopy(mean)
    own = network.state_dict()
    total: Float64Array | None = None
    for done in range(1, draws + 1):
        for layer in recognised.layers:
            for key, value in layer.family.sample(layer.tensors, generator).items():
                own[join_key(layer.name, key)].copy_(torch.tensor(value))
        drawn = probabilities(run(network, inputs, batch))
        total = drawn if total is None else total + drawn
        if progress is not None:
            progress(done, draws)
    return np.asarray(total) / draws
