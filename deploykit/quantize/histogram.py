"""A histogram of a tensor's values in constant memory, whatever the number of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.spec.arrays import Float64Array, FloatArray

BINS = 8192
"""Bins over [-reach, reach); at least a quarter of them lie inside the largest magnitude seen."""


@dataclass(frozen=True)
class Histogram:
    """counts: [BINS] over [-reach, reach), reach a power of two; low, high: exact extremes."""

    counts: Float64Array
    reach: float
    low: float
    high: float

    def centres(self) -> Float64Array:
        """The middle of each bin, held inside the exact extremes."""
        width = 2.0 * self.reach / BINS
        middles = -self.reach + width * (np.arange(BINS) + 0.5)
        return np.clip(middles, self.low, self.high)


def empty_histogram() -> Histogram:
    """Nothing seen yet."""
    return Histogram(np.zeros(BINS), 2.0**-20, np.inf, -np.inf)


def observe(histogram: Histogram, values: FloatArray) -> Histogram:
    """The histogram with `values` added.

    Where they reach further than before, the reach doubles as often as needed: pairs of bins
    merge, so counts stay exact and the result does not depend on how samples were batched.
    Bin i holds floor(v / width) = i - BINS/2, exact because the width is a power of two.
    """
    if values.size == 0:
        return histogram
    flat = values.reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("a histogram holds finite values only")
    counts, reach = histogram.counts, histogram.reach
    while low < -reach or high >= reach:
        counts, reach = _double(counts), 2.0 * reach
    width = 2.0 * reach / BINS
    # float64, because a float32 product may underflow to a zero without its sign.
    scaled = np.multiply(flat, 1.0 / width, dtype=np.float64)
    np.floor(scaled, out=scaled)
    added = np.bincount(scaled.astype(np.intp) + BINS // 2, minlength=BINS)
    return Histogram(counts + added, reach, min(low, histogram.low), max(high, histogram.high))


def merge(histograms: Sequence[Histogram]) -> Histogram:
    """All their counts together; not empty."""
    reach = max(histogram.reach for histogram in histograms)
    total = np.zeros(BINS)
    for histogram in histograms:
        counts, own = histogram.counts, histogram.reach
        while own < reach:
            counts, own = _double(counts), 2.0 * own
        total += counts
    return Histogram(
        total,
        reach,
        min(histogram.low for histogram in histograms),
        max(histogram.high for histogram in histograms),
    )


def _double(counts: Float64Array) -> Float64Array:
    """Counts over twice the reach: pairs merge into the middle half."""
    merged = counts.reshape(-1, 2).sum(axis=1)
    quarter = BINS // 4
    return np.concatenate([np.zeros(quarter), merged, np.zeros(quarter)])
