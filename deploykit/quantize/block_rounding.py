"""Integers of weights whose outputs have several scales, one for each block of inputs.

    s[b] = f max |w[b]| / (2^(bits-1) - 1), up to the next number that both formats hold

over FACTORS f by block, for least squared error of its weights; then the integers of an output move
one step at a time while e' H e falls, e = s q - w.
Source: as `clipping` and `compensation`, whose rows have one scale each.
"""

from __future__ import annotations

import numpy as np

from deploykit.quantize.clipping import FACTORS
from deploykit.quantize.moments import InputMoments
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array
from deploykit.spec.plan import WeightRange
from deploykit.spec.quantized import int_range
from deploykit.spec.weight_only import by_input, held_by_both

SWEEPS = 3
COLUMNS = 32
"""Weights that move before the rest of the row hears of it, in one matrix product."""


def block_scales(weight: Float64Array, bits: int, size: int, chosen: WeightRange) -> Float32Array:
    """[O, B] of weights [O, I]; a block of zeros has the smallest."""
    _, highest = int_range(bits)
    blocks = weight.reshape(len(weight), -1, size)
    full = np.abs(blocks).max(axis=2) / highest
    scale = held_by_both(full.astype(np.float32))
    if chosen is WeightRange.LARGEST:
        return scale
    best = np.full(scale.shape, np.inf)
    found = scale
    for factor in FACTORS:
        tried = held_by_both((full * factor).astype(np.float32))
        wide = tried.astype(np.float64)[:, :, None]
        error = np.clip(np.rint(blocks / wide), -highest, highest) * wide - blocks
        squared = (error**2).sum(axis=2)
        found = np.where(squared < best, tried, found)
        best = np.fmin(squared, best)
    return np.asarray(found, np.float32)


def block_integers(
    weight: Float64Array, scale: Float32Array, bits: int, moments: InputMoments | None
) -> Int8Array:
    """[O, I]; to the nearest, and with moments each one of its weight's two neighbours."""
    _, highest = int_range(bits)
    wide = by_input(scale, weight.shape[1]).astype(np.float64)
    steps = np.clip(weight / wide, -highest, highest)
    nearest = np.rint(steps)
    if moments is None or moments.blocking.parts > 1:
        return nearest.astype(np.int8)
    return _descend(weight, steps, nearest, wide, moments.trusted()[0].astype(np.float64))


def _descend(
    weight: Float64Array,
    steps: Float64Array,
    nearest: Float64Array,
    wide: Float64Array,
    moments: Float64Array,
) -> Int8Array:
    """steps: weights in steps of their scales `wide`, inside the range; moments: [I, I]."""
    integers, low, high = nearest.copy(), np.floor(steps), np.ceil(steps)
    error = integers * wide - weight
    for _ in range(SWEEPS):
        slope, moved = error @ moments, 0
        for start in range(0, weight.shape[1], COLUMNS):
            end = min(start + COLUMNS, weight.shape[1])
            taken = np.zeros((len(weight), end - start))
            for j in range(start, end):
                other = np.where(integers[:, j] == low[:, j], high[:, j], low[:, j])
                step = (other - integers[:, j]) * wide[:, j]
                gains = step * (2 * slope[:, j] + step * moments[j, j]) < 0
                change = np.where(gains, step, 0.0)
                integers[gains, j] = other[gains]
                taken[:, j - start] = change
                slope[:, j + 1 : end] += change[:, None] * moments[j, j + 1 : end]
                moved += int(np.count_nonzero(gains))
            error[:, start:end] += taken
            slope[:, end:] += taken @ moments[start:end, end:]
        if not moved:
            break
    return integers.astype(np.int8)
