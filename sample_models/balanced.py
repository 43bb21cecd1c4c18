"""A balanced choice of labelled samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced(labels: NDArray[np.int64], classes: int, count: int, seed: int) -> NDArray[np.int64]:
    """Places of `count` samples at random, the sizes of any two classes at most one apart."""
    random = np.random.default_rng(seed)
    larger = set(random.permutation(classes)[: count % classes].tolist())
    chosen = [
        random.permutation(np.flatnonzero(labels == label))[: count // classes + (label in larger)]
        for label in range(classes)
    ]
    return random.permutation(np.concatenate(chosen))
