"""The normal distribution function and its tail on arrays, in double precision, without SciPy.

Phi(x) = erfc(-x / sqrt 2) / 2; erfcx(x) = e^(x^2) erfc(x). erfc is that of the C library, element
by element; from 10 on erfcx is its asymptotic series, Abramowitz and Stegun 1964, 7.1.23, whose
first term left out is below 1e-16 there.
"""

from __future__ import annotations

import math

import numpy as np

from deploykit.spec.arrays import Float64Array

ROOT_2, ROOT_PI = math.sqrt(2.0), math.sqrt(math.pi)
SERIES_FROM, TERMS = 10.0, 12

_erf = np.frompyfunc(math.erf, 1, 1)
_erfc = np.frompyfunc(math.erfc, 1, 1)


def erf(x: Float64Array) -> Float64Array:
    """The error function."""
    return np.asarray(_erf(x), dtype=np.float64)


def erfc(x: Float64Array) -> Float64Array:
    """1 - erf(x), exact in the upper tail."""
    return np.asarray(_erfc(x), dtype=np.float64)


def erfcx(x: Float64Array) -> Float64Array:
    """e^(x^2) erfc(x) for x >= 0, relative error below 1e-13."""
    near, far = np.minimum(x, SERIES_FROM), np.maximum(x, SERIES_FROM)
    term, total = np.ones_like(far), np.ones_like(far)
    for k in range(1, TERMS):
        term = term * -(2 * k - 1) / (2.0 * far * far)
        total = total + term
    series = total / (far * ROOT_PI)
    return np.where(x < SERIES_FROM, np.exp(near * near) * erfc(near), series)


def log_ndtr(x: Float64Array) -> Float64Array:
    """log Phi(x), without underflow in the lower tail."""
    upper = np.log1p(-0.5 * erfc(np.maximum(x, 0.0) / ROOT_2))
    below = np.minimum(x, 0.0)
    lower = -0.5 * below * below + log_scaled_tail(-below)
    return np.where(x > 0.0, upper, lower)


def log_scaled_tail(t: Float64Array) -> Float64Array:
    """log(e^(t^2 / 2) Phi(-t)) for t >= 0."""
    return np.asarray(np.log(0.5 * erfcx(t / ROOT_2)))
