"""Mean and SNR of a truncated log-normal gate as published code computes them, in float32.

    2 Z E[theta] = erfcx((s - beta) / r) e^(b - beta^2 / 2)
                   - erfcx((s - alpha) / r) e^(a - alpha^2 / 2)
with r = sqrt 2, Z = Phi(beta) - Phi(alpha), Phi(x) = (1 + erf(x / r)) / 2, and erfcx(-x) =
2 e^(x^2) - erfcx(x), put to 1 where it overflows. That is the same function as
`truncated_log_normal.moments`, but e^88 is the largest power in float32: from mu < 0 and
|mu| / sigma about 13 on the overflow answers E = 0 and SNR = 0 for the least noisy gates of all;
from mu / sigma about 5 on, 1 + erf rounds to 0 and with it Z, so that E is infinite.
Source: Neklyudov et al. 2017, appendix; the 1e-8 is that of the PyTorch version.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deploykit.posterior import normal_distribution
from deploykit.posterior.truncated_log_normal import HIGHEST, LOWEST
from deploykit.spec.arrays import AnyArray, Float64Array

ROOT = np.float32(math.sqrt(2.0))
EPSILON = 1e-8


@dataclass(frozen=True)
class Published:
    """Per gate, as float32 computes it, NaN and infinity included."""

    mean: Float64Array
    snr: Float64Array


def published_moments(mu: Float64Array, sigma: Float64Array) -> Published:
    """Of every gate; both are rounded to float32 first, in which training held them."""
    m: AnyArray = mu.astype(np.float32)
    s: AnyArray = sigma.astype(np.float32)
    with np.errstate(all="ignore"):
        alpha, beta = (LOWEST - m) / s, (HIGHEST - m) / s
        mass = _ndtr(beta) - _ndtr(alpha)
        upper, lower = beta * beta / 2, alpha * alpha / 2
        mean = _erfcx((s - beta) / ROOT) * np.exp(HIGHEST - upper)
        mean = (mean - _erfcx((s - alpha) / ROOT) * np.exp(LOWEST - lower)) / (2 * mass)
        first = _erfcx((s - beta) / ROOT) * np.exp(HIGHEST - m - upper)
        first = first - _erfcx((s - alpha) / ROOT) * np.exp(LOWEST - m - lower)
        second = 2 * mass * _erfcx((2 * s - beta) / ROOT) * np.exp(2 * (HIGHEST - m) - upper)
        cut = 2 * mass * _erfcx((2 * s - alpha) / ROOT) * np.exp(2 * (LOWEST - m) - lower)
        snr = first / np.sqrt(EPSILON + (second - cut) - first * first)
    return Published(mean.astype(np.float64), snr.astype(np.float64))


def _ndtr(x: AnyArray) -> AnyArray:
    erf = normal_distribution.erf((x / ROOT).astype(np.float64)).astype(np.float32)
    return np.asarray((1 + erf) / 2, dtype=np.float32)


def _erfcx(x: AnyArray) -> AnyArray:
    positive = normal_distribution.erfcx(np.abs(x).astype(np.float64)).astype(np.float32)
    negative = 2 * np.exp(x * x) - positive
    negative = np.where(np.isfinite(negative), negative, np.float32(1))
    return np.asarray(np.where(x > 0, positive, negative), dtype=np.float32)
