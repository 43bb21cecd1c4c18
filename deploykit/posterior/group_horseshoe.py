"""Group horseshoe: one scale per input, z^2 = s_a s_b alpha beta, each factor log-normal.

log z ~ N(m, v), m = (sum of the four means) / 2, v = (sum of the four variances) / 4, variances
stored as logarithms; w ~ N(weight_mu, exp(weight_logvar)) of [C, I].
    with bias_mu      W = weight_mu E[z], E[z] = exp(m + v / 2), Var[z] = E[z]^2 (e^v - 1)
    without bias_mu   the layer has one input more, held at 1, so that the last column is the bias;
                      evaluation multiplies by the root of the product of the four means,
                      exp(m + v), and so does the twin
Source: Louizos, Ullrich and Welling 2017, section 4.2; public ports of LinearGroupHS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap
from deploykit.posterior.group_normal_jeffreys import product_variance
from deploykit.posterior.moments import all_float32, draw, exponential, float32, float64
from deploykit.posterior.shapes import Shape, require_shapes
from deploykit.spec.arrays import Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior

NAME = "group horseshoe"
FACTORS = ("sa", "sb", "alpha", "beta")


@dataclass(frozen=True)
class _Scale:
    """log z ~ N(center, spread) per input [I]."""

    center: Float64Array
    spread: Float64Array

    def mean(self) -> Float64Array:
        return np.exp(self.center + self.spread / 2.0)

    def variance(self) -> Float64Array:
        return np.asarray(self.mean() ** 2 * np.expm1(self.spread))

    def log_mode(self) -> Float64Array:
        return np.asarray(self.center - self.spread)


def _scale(tensors: Tensors) -> _Scale:
    center = sum(float64(tensors[f"{name}_mu"]) for name in FACTORS)
    spread = sum(exponential(tensors[f"{name}_logvar"]) for name in FACTORS)
    return _Scale(np.asarray(center / 2.0), np.asarray(spread / 4.0))


def layer_posterior(name: str, tensors: Tensors) -> LayerPosterior:
    """Moments of the twin's weight and bias, and m - v, the log of the scale's mode, per input.

    The variance is that of w z around E[w z], whichever mean the evaluation takes.
    """
    _require_shapes(name, tensors)
    scale = _scale(tensors)
    weight, noise = float64(tensors["weight_mu"]), exponential(tensors["weight_logvar"])
    with np.errstate(over="ignore"):
        z, z_variance = scale.mean()[None, :], scale.variance()[None, :]
        variance = product_variance(weight, noise, z, z_variance)
    score, ungated, ungated_noise = scale.log_mode(), weight, noise
    if "bias_mu" in tensors:
        mean = {"weight": weight * z, "bias": float64(tensors["bias_mu"])}
        spread = {"weight": variance, "bias": exponential(tensors["bias_logvar"])}
    else:
        with np.errstate(over="ignore"):
            evaluated = weight * np.exp(scale.center + scale.spread)[None, :]
        mean, spread = _split(evaluated), _split(variance)
        score, ungated, ungated_noise = score[:-1], weight[:, :-1], noise[:, :-1]
    return LayerPosterior(
        name=name,
        family=NAME,
        mean=all_float32(name, mean),
        variance=all_float32(name, spread),
        gate_score=float32(name, score),
        gate_axis=1,
        weight_mean=float32(name, ungated),
        weight_variance=float32(name, ungated_noise),
        prior_variance=1.0,
    )


def sample_layer(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    """One draw: the four factors, then w, independent, then multiplied."""
    logs = [
        draw(float64(tensors[f"{name}_mu"]), exponential(tensors[f"{name}_logvar"]), generator)
        for name in FACTORS
    ]
    z = np.exp(np.asarray(sum(logs)) / 2.0)
    weight = draw(float64(tensors["weight_mu"]), exponential(tensors["weight_logvar"]), generator)
    if "bias_mu" in tensors:
        bias = draw(float64(tensors["bias_mu"]), exponential(tensors["bias_logvar"]), generator)
        drawn = {"weight": weight * z[None, :], "bias": bias}
    else:
        drawn = _split(weight * z[None, :])
    return {key: value.astype(np.float32) for key, value in drawn.items()}


def _split(columns: Float64Array) -> dict[str, Float64Array]:
    """[C, I + 1] -> weight [C, I] and the last column as bias [C]."""
    return {"weight": columns[:, :-1], "bias": columns[:, -1]}


def _require_shapes(name: str, tensors: Tensors) -> None:
    weight = tensors["weight_mu"].shape
    if len(weight) != 2:
        raise CheckpointError(
            f"layer '{name}': weight_mu of shape {weight} belongs to no linear layer; only those "
            "have a group horseshoe that can be folded"
        )
    outputs, inputs = weight
    shapes: dict[str, set[Shape]]
    shapes = {"weight_logvar": {weight}, "bias_mu": {(outputs,)}, "bias_logvar": {(outputs,)}}
    for part in ("mu", "logvar"):
        shapes |= {f"alpha_{part}": {(inputs,)}, f"beta_{part}": {(inputs,)}}
        shapes |= {f"sa_{part}": {(1,), ()}, f"sb_{part}": {(1,), ()}}
    require_shapes(name, tensors, "weight_mu", shapes)


GROUP_HORSESHOE = Family(
    name=NAME,
    signature=frozenset(
        {f"{name}_{part}" for name in (*FACTORS, "weight") for part in ("mu", "logvar")}
    ),
    optional=(frozenset({"bias_mu", "bias_logvar"}),),
    posterior=layer_posterior,
    sample=sample_layer,
    gate_rule=GateRule(
        score="log mode of the scale",
        closes=Closes.AT_OR_BELOW,
        threshold=None,
        source="no reference code gives a threshold; it is read off a histogram, as for the group "
        "normal-Jeffreys",
    ),
    eval_forward=EvalForward.MEAN,
    source="Louizos, Ullrich and Welling 2017, 'Bayesian compression for deep learning'",
    traps=(
        Trap(
            "there is no bias_mu, so the last column is taken for the bias, and the scales are "
            "exp(m + v) as that version evaluates them, e^(v / 2) times their mean",
            lambda tensors: "bias_mu" not in tensors,
        ),
    ),
)
