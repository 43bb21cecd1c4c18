"""Scales that fit the integers found, and integers found anew on them, where both err less.

    s = q' H w / q' H q      minimises (s q - w)' H (s q - w) over s, row by row
Source: Zhang et al. 2023, QuantEase, section 3 (coordinate descent over integers and scales).
"""

from __future__ import annotations

import numpy as np

from deploykit.quantize.compensation import compensated_weights, output_error
from deploykit.quantize.moments import InputMoments
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array


def refitted_weights(
    weight: Float64Array,
    found: tuple[Int8Array, Float32Array],
    floor: Float32Array,
    moments: InputMoments,
    bits: int,
) -> tuple[Int8Array, Float32Array]:
    """Integers [O, ...] and scale [O], row by row those given or better ones.

    floor: [O], the smallest scales that may be.
    """
    values, scale = found
    trusted = moments.trusted().astype(np.float64)
    by_block = moments.blocking.split(values.astype(np.float64))
    moved = by_block @ trusted
    real = moments.blocking.split(weight)
    along = moments.blocking.by_row((moved * real).sum(axis=2))
    square = moments.blocking.by_row((moved * by_block).sum(axis=2))
    sound = (along > 0) & (square > 0)
    fitting = np.where(sound, along / np.where(sound, square, 1.0), scale)
    least = np.maximum(fitting, floor).astype(np.float32)
    others, their_scale = compensated_weights(weight, least, moments, bits)
    before = _errors(weight, values, scale, moments)
    better = _errors(weight, others, their_scale, moments) < before
    spread = better.reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.where(spread, others, values), np.where(better, their_scale, scale)


def _errors(
    weight: Float64Array, values: Int8Array, scale: Float32Array, moments: InputMoments
) -> Float64Array:
    """[O], (s q - w)' H (s q - w)."""
    wide = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = moments.blocking.split(values * wide - weight)
    return moments.blocking.by_row(output_error(error, moments.trusted()))
