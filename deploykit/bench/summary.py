"""Figures from samples, with an interval that knows how few rounds there are.

Run-to-run variance is larger than within-run variance (pytorch/executorch#8603), so the interval
is over process rounds and not over samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from deploykit.spec.arrays import Float64Array
from deploykit.spec.bench import Latency

P99_MIN_SAMPLES = 1000
INTERVAL_MIN_ROUNDS = 6
"""With n rounds, [smallest, largest] covers the median with probability 1 - 2^(1-n): 97 % for 6."""

RESAMPLES = 5_000
NS_PER_MS = 1e6

_T_975 = {
    5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179, 13: 2.160,
    14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 25: 2.060,
    30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980,
}  # fmt: skip
"""Student's t quantile at 0.975 by degrees of freedom."""


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """median(|x - median(x)|), in the unit of x, not scaled to a normal sigma."""
    values = np.asarray(samples, dtype=np.float64)
    return float(np.median(np.abs(values - np.median(values))))


def bootstrap_interval(round_medians: Sequence[float], seed: int) -> tuple[float, float] | None:
    """95 % interval of the median over rounds; None below 6 rounds.

    Percentile bootstrap, its tails moved out from 0.025 to Phi(-sqrt(n/(n-1)) t_{0.975, n-1}),
    because with few rounds the plain one is too narrow.
    Source: Hesterberg 2015, "What teachers should know about the bootstrap".
    """
    count = len(round_medians)
    if count < INTERVAL_MIN_ROUNDS:
        return None
    values = np.asarray(round_medians, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    medians: Float64Array = np.median(values[picks], axis=1)
    tail = _expanded_tail(count)
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(count: int) -> float:
    freedom = max(known for known in _T_975 if known <= count - 1)
    return NormalDist().cdf(-((count / (count - 1)) ** 0.5) * _T_975[freedom])


def summarize(rounds_ns: Sequence[Sequence[int]], seed: int) -> Latency:
    """Latency of one model from each round's samples in nanoseconds. No sample is dropped.

    Percentiles interpolate linearly between order statistics.
    """
    medians = [float(np.median(samples)) / NS_PER_MS for samples in rounds_ns]
    pooled = np.concatenate([np.asarray(samples, dtype=np.float64) for samples in rounds_ns])
    pooled = pooled / NS_PER_MS
    enough = pooled.size >= P99_MIN_SAMPLES
    return Latency(
        median_ms=float(np.median(medians)),
        interval_ms=bootstrap_interval(medians, seed),
        p90_ms=float(np.quantile(pooled, 0.90)),
        p99_ms=float(np.quantile(pooled, 0.99)) if enough else None,
        mad_ms=median_absolute_deviation(pooled.tolist()),
        samples=int(pooled.size),
    )
