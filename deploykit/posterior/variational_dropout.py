"""Variational dropout by weight: w ~ N(theta, sigma^2), log alpha = log sigma^2 - 2 log |theta|.

A weight whose log alpha reaches 3 (alpha about 20, a dropout rate of 0.95) is put to zero.

names                                               epsilon   clamp    evaluation
weight, log_sigma2   pytorch_ard LinearARD,         1e-15     10 or 8  masked
                     cplxmodule Linear/ConvVD, ARD  1e-12     none     plain mean
W|weight|mu with log_sigma, log_sigma_2,            1e-16     10       masked
  log_sigma2, log_alpha   notebooks
weight, log_alpha    one number for the layer       none      none     plain mean
log_sigma is the log of the standard deviation, the others but log_alpha are of the variance.
The epsilons and clamps move no weight across a threshold between -8 and 8 unless |theta| < 1e-12.
Source: Molchanov, Ashukha and Vetrov 2017, 'Variational dropout sparsifies deep neural networks'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap
from deploykit.posterior.moments import all_float32, draw, exponential, float32, float64
from deploykit.spec.arrays import Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior

LARGEST_DROPPED_NOT = 3.0
SMALLEST_WEIGHT = 1e-16
LARGEST_LOG_ALPHA = 10.0
PAPER = "Molchanov, Ashukha and Vetrov 2017"

LogVariance = Callable[[Float64Array, Float64Array], Float64Array]
"""(theta, the stored tensor) -> log sigma^2, both in the weight's shape."""


def log_alpha(weight: Float64Array, log_variance: Float64Array) -> Float64Array:
    """log sigma^2 - 2 log(|theta| + 1e-16), clamped to [-10, 10]."""
    values = log_variance - 2.0 * np.log(np.abs(weight) + SMALLEST_WEIGHT)
    return np.clip(values, -LARGEST_LOG_ALPHA, LARGEST_LOG_ALPHA)


def _of_alpha(weight: Float64Array, stored: Float64Array) -> Float64Array:
    clamped = np.clip(stored, -LARGEST_LOG_ALPHA, LARGEST_LOG_ALPHA)
    return np.asarray(clamped + 2.0 * np.log(np.abs(weight) + SMALLEST_WEIGHT))


SPREADS: Mapping[str, LogVariance] = {
    "log_alpha": _of_alpha,
    "log_sigma": lambda _, stored: 2.0 * stored,
    "log_sigma2": lambda _, stored: stored,
    "log_sigma_2": lambda _, stored: stored,
}
WEIGHTS = ("W", "mu", "weight")
CPLXMODULE_L0_NAMES = ("weight", "log_alpha")
"""Names of cplxmodule's LinearL0 too, whose bias is [C]; a bias of [1, C] is that of notebooks."""


def _family(
    name: str, weight_key: str, spread_key: str, evaluation: EvalForward, traps: tuple[Trap, ...]
) -> Family:
    def parts(tensors: Tensors) -> tuple[Float64Array, Float64Array]:
        weight = float64(tensors[weight_key])
        return weight, SPREADS[spread_key](weight, float64(tensors[spread_key]))

    def posterior(layer: str, tensors: Tensors) -> LayerPosterior:
        weight, log_variance = parts(tensors)
        mean, variance = {"weight": weight}, {"weight": exponential(log_variance)}
        if "bias" in tensors:
            mean["bias"] = _flat_bias(tensors)
            variance["bias"] = np.zeros_like(mean["bias"])
        folded, noise = all_float32(layer, mean), all_float32(layer, variance)
        return LayerPosterior(
            name=layer,
            family=name,
            mean=folded,
            variance=noise,
            gate_score=float32(layer, log_alpha(weight, log_variance)),
            gate_axis=None,
            weight_mean=folded["weight"],
            weight_variance=noise["weight"],
        )

    def sample(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
        weight, log_variance = parts(tensors)
        drawn = {"weight": draw(weight, np.exp(log_variance), generator)}
        if "bias" in tensors:
            drawn["bias"] = _flat_bias(tensors)
        return {key: value.astype(np.float32) for key, value in drawn.items()}

    def fits(tensors: Tensors) -> bool:
        weight = tensors[weight_key]
        outputs = weight.shape[0] if weight.ndim else 0
        bias = tensors.get("bias", np.zeros(outputs))
        if (weight_key, spread_key) == CPLXMODULE_L0_NAMES and bias.ndim == 1:
            return False
        return (
            weight.ndim in (2, 3, 4)
            and tensors[spread_key].shape == weight.shape
            and bias.size == outputs == max(bias.shape)
        )

    return Family(
        name=name,
        signature=frozenset({weight_key, spread_key}),
        optional=(frozenset({"bias"}),),
        posterior=posterior,
        sample=sample,
        gate_rule=GateRule(
            score="log alpha",
            closes=Closes.AT_OR_ABOVE,
            threshold=LARGEST_DROPPED_NOT,
            source=f"{PAPER}, section 5: log alpha = 3, a dropout rate of 0.95",
        ),
        eval_forward=evaluation,
        source=PAPER,
        traps=traps,
        fits=fits,
    )


def _flat_bias(tensors: Tensors) -> Float64Array:
    """The bias, which some versions store as [1, C]."""
    return float64(tensors["bias"]).reshape(-1)


ARD = _family(
    "variational dropout",
    "weight",
    "log_sigma2",
    EvalForward.MEAN_OR_MASKED,
    (
        Trap(
            "pytorch_ard and cplxmodule write the same names, and their evaluation differs: masked "
            "at log alpha 3, or the plain mean; no threshold is stored, so weights are dropped at "
            "3 here (cplxmodule's documentation reasons about 2.96), and --prune-rule none keeps "
            "all of them",
            lambda _: True,
        ),
    ),
)
NAMED_OTHERWISE = tuple(
    _family(
        f"variational dropout ({weight}, {spread})", weight, spread, EvalForward.MASKED_MEAN, ()
    )
    for weight in WEIGHTS
    for spread in SPREADS
    if (weight, spread) != ("weight", "log_sigma2")
)


def _shared_posterior(layer: str, tensors: Tensors) -> LayerPosterior:
    """Var[w] = alpha theta^2 with one alpha for the layer, which no weight can be told by."""
    mean = {"weight": float64(tensors["weight"])}
    alpha = exponential(tensors["log_alpha"]).reshape(-1)[0]
    variance = {"weight": alpha * mean["weight"] ** 2}
    if "bias" in tensors:
        mean["bias"] = _flat_bias(tensors)
        variance["bias"] = np.zeros_like(mean["bias"])
    return LayerPosterior(
        layer, SHARED_NAME, all_float32(layer, mean), all_float32(layer, variance)
    )


def _shared_sample(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    found = _shared_posterior("", tensors)
    mean, variance = (float64(part["weight"]) for part in (found.mean, found.variance))
    return dict(found.mean) | {"weight": draw(mean, variance, generator).astype(np.float32)}


def _one_alpha(tensors: Tensors) -> bool:
    weight = tensors["weight"]
    bias = tensors.get("bias", np.zeros(len(weight)))
    return (
        weight.ndim in (2, 4)
        and tensors["log_alpha"].size == 1 < weight.size
        and bias.size == len(weight) == max(bias.shape)
    )


SHARED_NAME = "variational dropout, one alpha"
SHARED = Family(
    name=SHARED_NAME,
    signature=frozenset({"weight", "log_alpha"}),
    optional=(frozenset({"bias"}),),
    posterior=_shared_posterior,
    sample=_shared_sample,
    gate_rule=None,
    eval_forward=EvalForward.MEAN,
    source="Kingma, Salimans and Welling 2015; BBBConv2d of PyTorch-BayesianCNN before 2020",
    fits=_one_alpha,
)
VARIATIONAL_DROPOUT = (ARD, *NAMED_OTHERWISE, SHARED)
