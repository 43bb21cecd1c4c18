"""The Bayesian layers of torch-uncertainty 0.13: BayesLinear, BayesConv1d and 2d.

The key called sigma holds rho: sigma = log(1 + e^rho). Layers draw in eval mode too, unless frozen.
`weight_sampler.{mu,rho}` are the same parameters once more. The prior is in the file, a mixture
of two centred Gaussians: p(w) = pi N(0, s_1^2) + (1 - pi) N(0, s_2^2).
Source: torch_uncertainty/layers/bayesian at 0.13.0.
"""

from __future__ import annotations

import numpy as np

from deploykit.posterior.family import Trap
from deploykit.posterior.mean_field import Gaussian, Layout, mean_field, rho
from deploykit.posterior.moments import float64
from deploykit.spec.arrays import Tensors

_COPIES = {
    "weight_mu": "weight_sampler.mu",
    "weight_sigma": "weight_sampler.rho",
    "bias_mu": "bias_sampler.mu",
    "bias_sigma": "bias_sampler.rho",
}


def _parts(part: str) -> frozenset[str]:
    prior = {f"{part}_prior_dist.{key}" for key in ("pi", "mus", "sigmas")}
    copies = {f"{part}_sampler.mu", f"{part}_sampler.rho"}
    return frozenset({f"{part}_mu", f"{part}_sigma", *copies, *prior})


def prior_variance(tensors: Tensors) -> float | None:
    """Of the Gaussian whose density at zero is the mixture's: all that Savage-Dickey asks of it.

    p(0) = (sum pi_i / s_i) / sqrt(2 pi), so s = 1 / sum pi_i / s_i. None where a mean is not zero.
    """
    share, deviation = (float64(tensors[f"weight_prior_dist.{key}"]) for key in ("pi", "sigmas"))
    if np.any(tensors["weight_prior_dist.mus"]) or not (deviation > 0).all():
        return None
    return float((share / deviation).sum() ** -2)


TORCH_UNCERTAINTY = mean_field(
    name="torch-uncertainty",
    layout=Layout(
        weight=Gaussian("weight_sampler.mu", "weight_sampler.rho"),
        bias=Gaussian("bias_sampler.mu", "bias_sampler.rho"),
        deviation=rho,
        prior_variance=prior_variance,
        copies=_COPIES,
    ),
    signature=_parts("weight"),
    optional=(_parts("bias"),),
    source="torch-uncertainty 0.13.0, torch_uncertainty/layers/bayesian",
    traps=(
        Trap(
            "the key called weight_sigma holds rho, not sigma: sigma = log(1 + e^rho) is used",
            lambda tensors: bool((tensors["weight_sigma"] < 0).any()),
        ),
    ),
)
