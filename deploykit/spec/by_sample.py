"""Tensors of several samples, some of which hold several rows for each."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from deploykit.spec.arrays import AnyArray

Scalar = TypeVar("Scalar", bound=np.generic)


def by_sample(values: npt.NDArray[Scalar], samples: int) -> npt.NDArray[Scalar]:
    """[N * rows, ...] -> [N, rows, ...], N = samples."""
    return values.reshape(samples, -1, *values.shape[1:])


def of_samples(
    values: npt.NDArray[Scalar], wanted: AnyArray | slice, samples: int
) -> npt.NDArray[Scalar]:
    """The rows of some samples. values: [N * rows, ...], N = samples; wanted: [N] bool, or indices.

    of_samples([[1], [2], [3], [4]], [1], 2) -> [[3], [4]]
    """
    return by_sample(values, samples)[wanted].reshape(-1, *values.shape[1:])
