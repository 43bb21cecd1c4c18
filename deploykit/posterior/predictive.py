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
from deploykit.spec.arrays import AnyArray, Float64Array, FloatArray
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.posterior import Checkpoint, Folded, Predictive
from deploykit.spec.samples import Samples

DRAWS = 16
ECE_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)

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


def probabilities(outputs: FloatArray) -> Float64Array:
    """softmax over the last axis of [N, K]; probabilities are returned as they are."""
    if outputs.ndim != 2:
        raise DataError(
            f"the network's output has shape {outputs.shape}; class probabilities need [N, K], so "
            "leave the labels out for this network"
        )
    values = outputs.astype(np.float64)
    if values.shape[1] > 1 and (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-4):
        return values
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def metrics(class_probabilities: FloatArray, labels: AnyArray) -> Predictive:
    """Accuracy as a share, mean negative log-likelihood in nats, and ECE over 15 bins.

    class_probabilities: [N, K]. labels: [N] integers below K.
    ECE = sum over bins (b/15, (b+1)/15] of share of samples * |accuracy - mean confidence|.
    Source: Guo et al. 2017, equation 3.
    """
    _require_labels(class_probabilities, labels)
    values = class_probabilities.astype(np.float64)
    truth = labels.astype(np.int64)
    correct = values.argmax(axis=1) == truth
    confidence = values.max(axis=1)
    likelihood = np.maximum(values[np.arange(len(truth)), truth], SMALLEST_PROBABILITY)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return Predictive(
        accuracy=float(correct.mean()),
        nll=float(-np.log(likelihood).mean()),
        ece=float(np.abs(gaps).sum() / len(truth)),
    )


def _require_labels(class_probabilities: FloatArray, labels: AnyArray) -> None:
    count, classes = class_probabilities.shape
    if labels.shape != (count,) or count == 0:
        raise DataError(
            f"labels of shape {labels.shape} do not fit {count} inputs; give one label each"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype}; give class numbers as integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()} and the network has {classes} "
            "classes; number them from 0"
        )
