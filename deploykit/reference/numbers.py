"""Operators on whole numbers that have no quantization."""

from __future__ import annotations

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Int8Array
from deploykit.spec.operators import ArgMax, Embedding
from deploykit.spec.quantized import IndexTensor


def embedding(numbers: AnyArray, operator: Embedding) -> Int8Array:
    """Whole numbers [N, ...] -> rows [N, ..., columns]."""
    return np.take(operator.table.values, numbers, axis=0)


def arg_max(values: Int8Array, operator: ArgMax, into: IndexTensor) -> AnyArray:
    """The first of the largest entries along an axis, as whole numbers in the output's shape."""
    found = values.argmax(axis=operator.axis)
    return np.asarray(found.reshape(-1, *into.shape[1:]), dtype=into.dtype)


def checked_numbers(values: AnyArray, held: IndexTensor) -> AnyArray:
    """The values themselves, where they are whole numbers below the limit and fit its shape."""
    shape = ", ".join(("N", *map(str, held.shape[1:])))
    if values.dtype.kind not in "iu" or values.shape[1:] != held.shape[1:]:
        raise DataError(
            f"{held.name}: expected whole numbers [{shape}], got {values.dtype} "
            f"{list(values.shape)}."
        )
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < held.limit:
        raise DataError(
            f"{held.name} runs from {values.min()} to {values.max()}, and the table that it takes "
            f"rows of has {held.limit}: give numbers from 0 to {held.limit - 1}."
        )
    return values
