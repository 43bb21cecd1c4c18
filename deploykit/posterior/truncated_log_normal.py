"""Moments of theta, log theta ~ N(mu, sigma^2) truncated to [-20, 0], in double precision.

With alpha = (-20 - mu) / sigma, beta = -mu / sigma and Phi the normal distribution function:
    E[theta^k] = e^(k mu + k^2 sigma^2 / 2) (Phi(beta - k sigma) - Phi(alpha - k sigma))
                 / (Phi(beta) - Phi(alpha))
    SNR        = E[theta] / sqrt(E[theta^2] - E[theta]^2) = 1 / sqrt(e^x - 1),
    x          = log E[theta^2] - 2 log E[theta]
Where mu > 0 all mass is in a tail: both Phi underflow, and Phi(-t) = e^(-t^2 / 2) erfcx(t / sqrt 2)
/ 2 is put in, whose exponents cancel exactly: k mu + k^2 sigma^2 / 2 - (k sigma - beta)^2 / 2
+ beta^2 / 2 = 0. Source: Neklyudov et al. 2017, appendix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.posterior.normal_distribution import log_ndtr, log_scaled_tail
from deploykit.spec.arrays import Float64Array

LOWEST, HIGHEST = -20.0, 0.0
"""Where log theta is truncated."""
SMALLEST_EXCESS = 1e-14
"""Below, rounding hides the variance: no SNR above 1e7 is told apart."""
GRID, SPREADS, DECAYS = 1025, 12.0, 40.0


@dataclass(frozen=True)
class Moments:
    """Per gate: E[theta], Var[theta] and their ratio E / sqrt(Var)."""

    mean: Float64Array
    variance: Float64Array
    snr: Float64Array


def moments(mu: Float64Array, sigma: Float64Array) -> Moments:
    """Of every gate; mu from -20 to 5, sigma positive."""
    logs = [_log_ratio(mu, sigma, times) for times in (1, 2)]
    shift = np.where(mu > HIGHEST, 0.0, mu)
    mean = np.exp(shift + logs[0])
    # log E[theta^2] - 2 log E[theta] without mu, which would cancel.
    excess = np.maximum(logs[1] - 2.0 * logs[0], SMALLEST_EXCESS)
    relative = np.expm1(excess)
    return Moments(mean, mean**2 * relative, 1.0 / np.sqrt(relative))


def draw(mu: Float64Array, sigma: Float64Array, generator: np.random.Generator) -> Float64Array:
    """One draw of every gate, by inverting its distribution function on a grid around the mode."""
    mode = np.clip(mu, LOWEST, HIGHEST)
    with np.errstate(divide="ignore", over="ignore"):
        decay = np.where(mu > HIGHEST, DECAYS * sigma**2 / np.maximum(mu, 1e-300), np.inf)
    reach = np.minimum(SPREADS * sigma, decay)
    low, high = np.maximum(mode - reach, LOWEST), np.minimum(mode + reach, HIGHEST)
    at = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, GRID)
    exponent = -0.5 * ((at - mu[:, None]) / sigma[:, None]) ** 2
    density = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    steps = np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1)
    share = np.concatenate([np.zeros((len(mu), 1)), steps / steps[:, -1:]], axis=1)
    level = generator.uniform(size=len(mu))
    drawn = [np.interp(u, s, x) for u, s, x in zip(level, share, at, strict=True)]
    return np.exp(np.array(drawn, dtype=np.float64))


def _log_ratio(mu: Float64Array, sigma: Float64Array, times: int) -> Float64Array:
    """log E[theta^times], less times * mu where mu <= 0."""
    alpha, beta = (LOWEST - mu) / sigma, (HIGHEST - mu) / sigma
    shift = times * sigma
    below = np.minimum(beta, 0.0)  # what the tail's form would be fed with elsewhere
    tail = log_scaled_tail(shift - below) - log_scaled_tail(-below)
    body = times * shift * sigma / 2.0 + log_ndtr(beta - shift) - log_ndtr(beta)
    cut = _log_remaining(alpha - shift, beta - shift) - _log_remaining(alpha, beta)
    return np.where(mu > HIGHEST, tail, body) + cut


def _log_remaining(low: Float64Array, high: Float64Array) -> Float64Array:
    """log(1 - Phi(low) / Phi(high)) for low < high."""
    return np.asarray(np.log(-np.expm1(log_ndtr(low) - log_ndtr(high))))
