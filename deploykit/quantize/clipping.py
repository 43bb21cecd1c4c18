"""Scales under the largest weight's, where clipping a few weights costs less than coarse steps.

    minimise (s q - w)' H (s q - w)   q = clip(rint(w / s)), s = f max|w| / (2^(bits-1) - 1)

over FACTORS f, row by row. At 8 bits steps are fine enough that nothing is clipped.
Source: Nagel et al. 2021, "A white paper on neural network quantization", section 3.1 (range by
mean squared error), with the output's error in place of the weights'.
"""

from __future__ import annotations

import numpy as np

from deploykit.quantize.compensation import output_error
from deploykit.quantize.moments import InputMoments
from deploykit.spec.arrays import Float32Array, Float64Array
from deploykit.spec.quantized import int_range

FULL_BITS = 8
"""From here on scales are those of the largest weights."""
FACTORS = np.linspace(1.0, 0.2, 33)


def clipped_scales(
    weight: Float64Array,
    full: Float32Array,
    floor: Float64Array,
    moments: InputMoments | None,
    bits: int,
) -> Float32Array:
    """[O]: of the scales tried the one whose nearest integers err least; `full` wins ties.

    full: [O], at which no weight is clipped. floor: [O], the smallest scales that runtimes take.
    moments: None counts every weight's error alike.
    """
    if bits >= FULL_BITS:
        return full
    _, highest = int_range(bits)
    best = np.full(len(full), np.inf)
    chosen = full
    for factor in FACTORS:
        scale = np.maximum(full * factor, floor).astype(np.float32)
        found = _row_errors(weight, scale, moments, highest)
        # A row whose error is not finite, or never shrinks, keeps its full scale.
        chosen, best = np.where(found < best, scale, chosen), np.fmin(found, best)
    return chosen


def _row_errors(
    weight: Float64Array, scale: Float32Array, moments: InputMoments | None, highest: int
) -> Float64Array:
    """[O], in squares of real units, over all blocks of a row."""
    wide = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = np.clip(np.rint(weight / wide), -highest, highest) * wide - weight
    if moments is None:
        return np.asarray((error**2).reshape(len(weight), -1).sum(axis=1))
    blocking = moments.blocking
    return blocking.by_row(output_error(blocking.split(error), moments.trusted()))
