"""Samples that two sets of data have in common, as far as rounding tells them apart.

The same images may come through other arithmetic: x / 255 or x * (1 / 255), float16 in a file. Two
samples count as one where no number differs by more than

    t[j] = f spread[j] + 2^-20 largest[j]

spread: of position j over all samples of both, largest: of its absolute numbers. f is 2^-10 where
so many positions vary that none are so near by chance, else 2^-20. Whole numbers (token ids) have
to be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.inputs import GraphInputs

OF_SPREAD, OF_LARGEST = 2.0**-10, 2.0**-20
"""float16 rounds a number by 2^-11 of it at most; float32 arithmetic of a few steps by 2^-22."""
MANY = 16
"""Positions. Of uniform numbers one pair in 10^43 is within 2^-10 in all; in two, one in 10^5."""
PARTS = 16
"""Of a sample, whose means tell most others apart before their numbers are compared."""


def in_both(first: GraphInputs, second: GraphInputs) -> int:
    """How many samples of the first are among the second."""
    return sum(bool(len(found)) for found in _matches(_arrays(first), _arrays(second)))


def _matches(first: list[AnyArray], second: list[AnyArray]) -> list[AnyArray]:
    """By sample of the first, indices of its like in the second.

    A mean of numbers that are each within t is within the mean of t: what lies farther in any part
    is no candidate.
    """
    tolerances = [_tolerance(one, other) for one, other in zip(first, second, strict=True)]
    features, others = _features(first), _features(second)
    reach = _features([one[None] for one in tolerances])[0] * (1 + OF_LARGEST) + np.finfo(float).eps
    order = np.argsort(others[:, 0])
    starts = np.searchsorted(others[order, 0], features[:, 0] - reach[0], side="left")
    stops = np.searchsorted(others[order, 0], features[:, 0] + reach[0], side="right")
    found = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        near = order[start:stop]
        near = near[(np.abs(others[near] - features[index]) <= reach).all(axis=1)]
        for one, other, tolerance in zip(first, second, tolerances, strict=True):
            apart = np.abs(other[near].astype(np.float64) - one[index])
            near = near[(apart <= tolerance).all(axis=1)]
        found.append(near)
    return found


def _arrays(inputs: GraphInputs) -> list[AnyArray]:
    """[N, D] of every input, in the order of their names."""
    arrays = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, Mapping) else [inputs]
    return [values.reshape(len(values), -1) for values in arrays]


def _tolerance(first: AnyArray, second: AnyArray) -> Float64Array:
    """[D]"""
    if first.dtype.kind != "f":
        return np.zeros(first.shape[1])
    low = np.minimum(first.min(axis=0), second.min(axis=0)).astype(np.float64)
    high = np.maximum(first.max(axis=0), second.max(axis=0)).astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    share = OF_SPREAD if np.count_nonzero(high > low) >= MANY else OF_LARGEST
    return np.asarray(share * (high - low) + OF_LARGEST * largest)


def _features(arrays: list[AnyArray]) -> Float64Array:
    """[N, inputs * PARTS at most], means of parts of every sample, that of the whole first."""
    columns: list[Float64Array] = []
    for values in arrays:
        edges = np.linspace(0, values.shape[1], min(PARTS, values.shape[1]) + 1).astype(int)
        parts = pairwise(edges)
        whole = values.mean(axis=1, dtype=np.float64)
        means = (values[:, start:stop].mean(axis=1, dtype=np.float64) for start, stop in parts)
        columns.extend((whole, *means))
    return np.stack(columns, axis=1)
