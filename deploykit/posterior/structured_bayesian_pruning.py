"""Structured Bayesian pruning: one truncated log-normal gate theta per output channel.

log theta ~ N(mu, sigma^2) on [-20, 0], mu from -20 to 5, log sigma (the standard deviation's) too.
Evaluation multiplies by E[theta] where SNR[theta] > 1, else by zero.

layer                weight, gates                         gates multiply
Conv2d_SBP           weight [C, I/g, kh, kw], mu [C],      outputs, bias too
Linear_SBP           weight [C, I], log_sigma [C]
SBP_layer            mu [C], log_sigma [C]                 channels
Source: Neklyudov, Molchanov, Ashukha and Vetrov 2017; gaosh's PyTorch version 7f96c56;
necludov/group-sparsity-sbp b868a3a.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap, TwinKind
from deploykit.posterior.gated import (
    GatedLayer,
    Gates,
    Layer,
    gate_layer,
    gated_posterior,
    gated_sample,
)
from deploykit.posterior.moments import float64
from deploykit.posterior.published_log_normal import published_moments
from deploykit.posterior.truncated_log_normal import draw, moments
from deploykit.spec.arrays import BoolArray, Float64Array, Tensors

SNR_KEPT_ABOVE = 1.0
SMALLEST, LARGEST = -20.0, 5.0
"""What mu and log sigma are clamped to before use."""
APART = 1e-3
"""Relative difference of E[theta] from which the published arithmetic counts as wrong."""
PAPER = "Neklyudov et al. 2017, 'Structured Bayesian pruning via log-normal multiplicative noise'"


def errs(tensors: Tensors) -> bool:
    """Whether the published arithmetic gets the mean of any gate wrong."""
    exact, published = moments(*_parameters(tensors)), published_moments(*_parameters(tensors))
    with np.errstate(invalid="ignore"):
        right = np.abs(published.mean - exact.mean) <= APART * exact.mean
    return not bool(right.all())


def _kept(snr: Float64Array) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(snr > SNR_KEPT_ABOVE, dtype=np.bool_)


def _parameters(tensors: Tensors) -> tuple[Float64Array, Float64Array]:
    """mu and sigma [C], clamped."""
    mu, log_sigma = (
        np.clip(float64(tensors[key]).reshape(-1), SMALLEST, LARGEST) for key in ("mu", "log_sigma")
    )
    return mu, np.exp(log_sigma)


def _exact_gates(tensors: Tensors) -> Gates:
    found = moments(*_parameters(tensors))
    return Gates(found.mean, found.variance, found.snr)


def _published_gates(tensors: Tensors) -> Gates:
    """NaN is closed. An open gate of infinite mean has no published value: it takes the exact."""
    exact, published = moments(*_parameters(tensors)), published_moments(*_parameters(tensors))
    finite = np.isfinite(published.mean)
    closed = ~_kept(published.snr)
    mean = np.where(finite, published.mean, np.where(closed, 0.0, exact.mean))
    score = np.where(np.isnan(published.snr), 0.0, published.snr)
    return Gates(mean, exact.variance, np.clip(score, -1e30, 1e30))


def _weighted(tensors: Tensors) -> GatedLayer:
    weight = float64(tensors["weight"])
    if "bias" not in tensors:
        return GatedLayer(weight, None, axis=0)
    return GatedLayer(weight, float64(tensors["bias"]), axis=0, gated=("weight", "bias"))


def _alone(tensors: Tensors) -> GatedLayer:
    return gate_layer(tensors["mu"].size)


def _drawn(tensors: Tensors, generator: np.random.Generator) -> Float64Array:
    return draw(*_parameters(tensors), generator)


def _one_gate_per_channel(tensors: Tensors) -> bool:
    mu = tensors["mu"]
    return tensors["log_sigma"].shape == mu.shape and max(mu.shape, default=1) == mu.size


TRAPS = (
    Trap(
        "the published float32 arithmetic loses the least noisy gates (mu < 0 and |mu| / sigma "
        "about 13 and more: mean and SNR 0) or makes them infinite (mu / sigma about 5 and more); "
        "double precision is used, and --numerics reference reproduces it",
        errs,
    ),
)


def _family(name: str, layer: Layer, **row: Any) -> Family:
    return Family(
        name=name,
        posterior=gated_posterior(name, layer, _exact_gates),
        evaluated=gated_posterior(name, layer, _published_gates),
        sample=gated_sample(layer, _drawn),
        gate_rule=GateRule(
            score="signal-to-noise of theta",
            closes=Closes.AT_OR_BELOW,
            threshold=SNR_KEPT_ABOVE,
            source=f"{PAPER}, section 5",
        ),
        eval_forward=EvalForward.MASKED_MEAN,
        source=f"{PAPER}; gaosh's version 7f96c56",
        traps=TRAPS,
        **row,
    )


SBP = _family(
    "structured Bayesian pruning",
    _weighted,
    signature=frozenset({"weight", "mu", "log_sigma"}),
    optional=(frozenset({"bias"}),),
    fits=_one_gate_per_channel,
)
SBP_GATES = _family(
    "structured Bayesian pruning, gate layer",
    _alone,
    signature=frozenset({"mu", "log_sigma"}),
    optional=(),
    twin=TwinKind.CHANNEL_SCALE,
    fits=_one_gate_per_channel,
)
