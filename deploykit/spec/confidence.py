"""How right a classifier's probabilities are: accuracy, NLL, Brier score, calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Float64Array, FloatArray

ECE_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Predictive:
    """Task metrics of one way to evaluate a network.

    nll: in nats. brier: 0 to 2. ece: over 15 bins of equal width; adaptive_ece: of equal count.
    """

    accuracy: float
    nll: float
    brier: float
    ece: float
    adaptive_ece: float


def probabilities(outputs: FloatArray) -> Float64Array:
    """softmax over the last axis of [N, K]; probabilities are returned as they are."""
    if outputs.ndim != 2:
        raise DataError(
            f"the network's output has shape {outputs.shape}; class probabilities need [N, K], so "
            "leave the labels out for this network"
        )
    values = outputs.astype(np.float64)
    return values if _are_probabilities(values) else softmax(values)


def softmax(scores: Float64Array) -> Float64Array:
    """exp(z) / sum exp(z) over the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def scores_of(outputs: FloatArray) -> Float64Array:
    """Logits [N, K] whose softmax is `probabilities(outputs)`: of probabilities their logarithm."""
    values = outputs.astype(np.float64)
    if not _are_probabilities(values):
        return values
    return np.asarray(np.log(np.maximum(values, SMALLEST_PROBABILITY)))


def _are_probabilities(values: Float64Array) -> bool:
    return values.shape[1] > 1 and bool(
        (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-4)
    )


def metrics(class_probabilities: FloatArray, labels: AnyArray) -> Predictive:
    """Metrics of class probabilities [N, K] under labels [N], integers below K.

    accuracy = share of n with argmax p_n = y_n
    nll      = mean of -ln p_n[y_n]
    brier    = mean of sum_k (p_n[k] - [k = y_n])^2
    ece      = sum over bins of share of samples * |accuracy - mean confidence|, where the bins
               part the confidence max_k p_n[k] at b/15, each with its upper end
    adaptive_ece: the same over 15 bins that hold equally many samples in order of confidence

    Sources: Guo et al. 2017, equation 3; Brier 1950; Nixon et al. 2019, section 4 (of the largest
    probability alone).
    """
    require_labels(labels, *class_probabilities.shape)
    values = class_probabilities.astype(np.float64)
    truth, rows = labels.astype(np.int64), np.arange(len(labels))
    correct = values.argmax(axis=1) == truth
    confidence = values.max(axis=1)
    likelihood = np.maximum(values[rows, truth], SMALLEST_PROBABILITY)
    error = np.square(values).sum(axis=1) - 2 * values[rows, truth] + 1
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    by_rank = np.empty(len(rows), np.int64)
    by_rank[np.argsort(confidence, kind="stable")] = rows * ECE_BINS // len(rows)
    surplus = correct - confidence
    return Predictive(
        accuracy=float(correct.mean()),
        nll=float(-np.log(likelihood).mean()),
        brier=float(error.mean()),
        ece=_calibration_error(surplus, bins),
        adaptive_ece=_calibration_error(surplus, by_rank),
    )


def _calibration_error(surplus: Float64Array, bins: AnyArray) -> float:
    """surplus: right or not, less confidence, of each sample; bins: which it is in."""
    gaps = np.bincount(bins, weights=surplus, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(surplus))


def require_labels(labels: AnyArray, count: int, classes: int) -> None:
    """Raise DataError unless there are `count` labels, integers from 0 to below `classes`."""
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
