"""How far one array is from another."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import AnyArray


def relative_difference(reference: AnyArray, values: AnyArray) -> float:
    """max |values - reference| / max |reference|; the plain difference where that is all zero."""
    difference = float(np.abs(reference.astype(np.float64) - values).max(initial=0.0))
    largest = float(np.abs(reference).max(initial=0.0))
    return difference / largest if largest > 0 else difference
