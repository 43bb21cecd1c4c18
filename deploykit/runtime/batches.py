"""Any number of samples through a file whose batch is fixed."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import AnyArray


def fill_batch(values: AnyArray, batch: int) -> AnyArray:
    """values [N, ...] with its last sample repeated until N is a multiple of `batch`.

    fill_batch(np.array([1, 2, 3]), 2) -> [1, 2, 3, 3]
    """
    lacking = -len(values) % batch
    return np.concatenate([values, np.repeat(values[-1:], lacking, axis=0)]) if lacking else values
