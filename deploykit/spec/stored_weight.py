"""Weights that float operators read, stored as int8: rounded once, and then exactly.

    s[c] = max |w[c]| / 127, rounded up to 16 bits of mantissa      q = rint(w / s)
    w'   = s * q

As s has 16 bits and q has 7, w' is exact in float32, and s is found again as max |w'[c]| / 127.
So the rounded float values say all: whoever writes them can store the integers instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.spec.arrays import Float32Array, Int8Array

MANTISSA = 2.0**16
LARGEST = 127
WORTH_IT = 256
"""Elements from which int8 and its scales are smaller than float32 in any layout."""


@dataclass(frozen=True)
class StoredWeight:
    """float32(values) * scale along `axis` is the weight. scale: [values.shape[axis]]."""

    values: Int8Array
    scale: Float32Array
    axis: int


def rounded_weight(weight: Float32Array, axis: int) -> Float32Array:
    """w' of the module, one scale for each position along `axis`."""
    scale = _scale(weight, axis)
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    coarse = np.ldexp(np.ceil(mantissa * MANTISSA) / MANTISSA, exponent).astype(np.float32)
    return np.asarray(np.rint(weight / coarse) * coarse, dtype=np.float32)


def stored_weight(weight: Float32Array) -> StoredWeight | None:
    """The int8 form of what rounded_weight gave, whatever was cut, turned or joined since.

    None where there is none that gives back every bit.
    """
    if weight.size < WORTH_IT or weight.ndim < 2 or not np.isfinite(weight).all():
        return None
    for axis in range(weight.ndim):
        scale = _found_scale(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
        if scale is not None:
            spread = scale.reshape([-1 if other == axis else 1 for other in range(weight.ndim)])
            return StoredWeight(np.rint(weight / spread).astype(np.int8), scale, axis)
    return None


def _found_scale(rows: Float32Array) -> Float32Array | None:
    """[n] of rows [n, m] that are whole multiples of it; None where one is of none.

    The largest of a row is 127 steps, or fewer where the number that was 127 is cut off.
    """
    if len(rows) > 1 and _found_scale(rows[:1]) is None:
        return None  # weights left in float mostly show it in their first row
    largest = np.abs(rows).max(axis=1)
    scale = np.ones(len(rows), np.float32)
    left = np.flatnonzero(largest)
    for steps in range(LARGEST, 0, -1):
        tried = (largest[left] / np.float32(steps)).astype(np.float32)
        held = rows[left]
        whole = np.rint(held / tried[:, None]) * tried[:, None]
        fits = (whole.astype(np.float32) == held).all(axis=1)
        scale[left[fits]] = tried[fits]
        left = left[~fits]
        if not left.size:
            return scale
    return None


def _scale(weight: Float32Array, axis: int) -> Float32Array:
    """max |w| / 127 along `axis`, broadcast to the weight; 1 where all is zero."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True, initial=0.0)
    return np.where(largest > 0, largest / np.float32(LARGEST), 1).astype(np.float32)
