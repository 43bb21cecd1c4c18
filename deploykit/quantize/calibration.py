"""From a histogram of real values to the range that eight bits should cover."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import assert_never

import numpy as np

from deploykit.quantize.histogram import BINS, Histogram
from deploykit.spec.arrays import Float64Array

PERCENTILE = 99.99
LEVELS = 256
SHRINK = np.concatenate([np.linspace(1.0, 0.2, 81), np.geomspace(0.2, 0.01, 31)[1:]])
"""Shares of the full range that the searches try: every percent, and sparser under a fifth."""

CLIPPED_AT_MOST = 0.01
"""Share of values that the entropy search may clip."""


class Calibration(Enum):
    """How a range is chosen from calibration data."""

    MSE = "mse"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


def choose_range(histogram: Histogram, method: Calibration) -> tuple[float, float]:
    """(low, high) with low <= 0 <= high, so that zero is an integer.

    minmax: everything seen. percentile: all but 0.01 % on each side. mse: the range with the least
    mean squared rounding and clipping error. entropy: the range with the least KL divergence from
    the values to their quantized form (Migacz 2017, TensorRT).
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not low < high:
        return 0.0, 1.0
    match method:
        case Calibration.MINMAX:
            return low, high
        case Calibration.PERCENTILE:
            return _percentile(histogram, low, high)
        case Calibration.MSE:
            return _search(lambda a, b: _range_error(histogram, a, b), low, high)
        case Calibration.ENTROPY:
            centres, counts = histogram.centres(), histogram.counts
            return _search(lambda a, b: _divergence(centres, counts, a, b), low, high)
        case _:
            assert_never(method)


def _percentile(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    cumulative = np.cumsum(histogram.counts)
    tail = (100.0 - PERCENTILE) / 100.0 * cumulative[-1]
    centres = histogram.centres()
    lower = float(
        centres[np.searchsorted(cumulative, tail, side="right").clip(0, len(centres) - 1)]
    )
    upper = float(centres[np.searchsorted(cumulative, cumulative[-1] - tail, side="left")])
    chosen = min(lower, 0.0), max(upper, 0.0)
    return chosen if chosen[0] < chosen[1] else (low, high)


def quantization_error(
    histogram: Histogram, scale: float, zero_point: int, levels: int = LEVELS
) -> float:
    """Mean squared error of rounding to `levels` integers and clipping, over the histogram."""
    used = histogram.counts > 0
    centres, counts = histogram.centres()[used], histogram.counts[used]
    lowest = -levels // 2
    steps = np.clip(np.rint(centres / scale) + zero_point, lowest, lowest + levels - 1)
    error = (steps - zero_point) * scale - centres
    return float((counts * error**2).sum() / counts.sum())


def _range_error(histogram: Histogram, low: float, high: float) -> float:
    scale = (high - low) / (LEVELS - 1)
    zero_point = int(np.rint(-LEVELS // 2 - low / scale))
    return quantization_error(histogram, scale, zero_point)


def _search(cost: Callable[[float, float], float], low: float, high: float) -> tuple[float, float]:
    """The cheapest range tried: both ends shrunk together, then each end alone from there.

    Alone an end may also grow again, so that an outlier on one side does not cut the other.
    """
    best = (cost(low, high), low, high)
    for share in SHRINK:
        best = min(best, (cost(low * share, high * share), low * share, high * share))
    for share in SHRINK:
        _, chosen_low, chosen_high = best
        if low < 0.0:
            best = min(best, (cost(low * share, chosen_high), low * share, chosen_high))
        if high > 0.0:
            best = min(best, (cost(chosen_low, high * share), chosen_low, high * share))
    return float(best[1]), float(best[2])


def _divergence(centres: Float64Array, counts: Float64Array, low: float, high: float) -> float:
    """KL(P || Q): P clips outliers into the end bins, Q spreads each level's mass over its bins.

    The bin of zero is left out of both: zero is an integer at every scale, so a Relu's spike there
    costs nothing, while spreading it over its level would favour ever narrower ranges. Infinite
    where more than CLIPPED_AT_MOST of the rest is clipped: with all mass in one end bin P and Q are
    equal, and say nothing.
    """
    counts = counts.copy()
    counts[BINS // 2] = 0.0
    inside = (centres >= low) & (centres <= high)
    if counts[~inside].sum() > CLIPPED_AT_MOST * counts.sum() or not counts[inside].any():
        return float("inf")
    reference = counts[inside].copy()
    positions = centres[inside]
    spread = reference.copy()
    reference[0] += counts[centres < low].sum()
    reference[-1] += counts[centres > high].sum()
    level = np.clip(np.floor((positions - low) / (high - low) * LEVELS), 0, LEVELS - 1).astype(int)
    occupied = spread > 0
    mass = np.bincount(level, weights=spread, minlength=LEVELS)
    bins = np.bincount(level, weights=occupied.astype(np.float64), minlength=LEVELS)
    quantized = np.where(occupied, mass[level] / np.maximum(bins[level], 1.0), 0.0)
    # Outliers may land in an end bin that was empty: a floor keeps the logarithm finite.
    p = reference / reference.sum()
    q = np.maximum(quantized / max(quantized.sum(), 1e-12), 1e-12)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())
