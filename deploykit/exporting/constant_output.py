"""Whether a network answers alike whatever it is given: then something before the export broke it.

An answer counts as constant where each of its numbers is, to float32 rounding of its own size: the
probabilities of a confident classifier differ in their small ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploykit.bundle import Golden
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import some_samples

RELATIVE = 1e-5


def constant_output(golden: Golden, weights: Mapping[str, AnyArray]) -> dict[str, Any] | None:
    """For manifest.json: on how many samples, and layers whose weights are all zero.

    weights: integers by layer. None where outputs differ, hold whole numbers alone, or where all
    samples are one.
    """
    some = slice(golden.real)
    inputs = some_samples(golden.inputs, some)
    arrays = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    floats = golden.folded[some]
    if floats.dtype.kind != "f" or all(_alike(values, 0.0) for values in arrays):
        return None
    if not _alike(floats, RELATIVE):
        return None
    zeros = [name for name, values in weights.items() if not values.any()]
    return {"samples": golden.real, "zero_weights": zeros}


def all_alike(outputs: AnyArray) -> bool:
    """Whether two or more samples [N, ...] have one and the same answer."""
    return len(outputs) > 1 and _alike(outputs, 0.0)


def _alike(values: AnyArray, relative: float) -> bool:
    return bool(np.isclose(values, values[:1], rtol=relative, atol=0.0, equal_nan=True).all())
