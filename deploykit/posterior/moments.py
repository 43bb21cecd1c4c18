"""Means, variances and draws in double precision, and what of them fits float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array


def float64(values: AnyArray) -> Float64Array:
    """In double precision: squares and exponentials of float32 overflow."""
    return values.astype(np.float64)


def float32(layer: str, values: Float64Array) -> Float32Array:
    """Rounded. Raises CheckpointError where a value overflows float32."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise CheckpointError(
            f"layer '{layer}': a log-variance is so large that the variance overflows float32; "
            "the training diverged, take an earlier checkpoint"
        )
    return rounded


def all_float32(layer: str, values: Mapping[str, Float64Array]) -> Mapping[str, Float32Array]:
    """Every parameter of a layer, rounded."""
    return {key: float32(layer, value) for key, value in values.items()}


def exponential(values: AnyArray) -> Float64Array:
    """e^x; infinity where it overflows, for `float32` to refuse."""
    with np.errstate(over="ignore"):
        return np.exp(float64(values))


def softplus(values: AnyArray) -> Float64Array:
    """log(1 + e^x) without overflow."""
    return np.logaddexp(0.0, float64(values))


def along(axis: int, dimensions: int, values: Float64Array) -> Float64Array:
    """Reshape [n] so that it broadcasts along `axis` of an array with that many dimensions."""
    shape = [1] * dimensions
    shape[axis] = -1
    return values.reshape(shape)


def draw(
    mean: Float64Array, variance: Float64Array, generator: np.random.Generator
) -> Float64Array:
    """One draw of independent Gaussians."""
    return np.asarray(mean + np.sqrt(variance) * generator.standard_normal(mean.shape))
