"""Group normal-Jeffreys, in the parameter names of KarenUllrich/Tutorial_BayesianCompression.

One scale z per group, z ~ N(z_mu, exp(z_logvar)), times a weight w ~ N(weight_mu,
exp(weight_logvar)); improper prior p(z) ~ 1/|z|, and N(0, 1) on the ungated w.

Linear [C, I]:          z has I entries, one per input;   W = w z[None, :], bias = b
Convolution [C, I, *k]: z has C entries, one per output;  W = w z[:, None, ...], bias = b z
Source: Louizos, Ullrich and Welling 2017, section 4.1; BayesianLayers.py at f1e7c79.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap
from deploykit.posterior.moments import all_float32, along, draw, exponential, float32, float64
from deploykit.posterior.shapes import Shape, require_shapes
from deploykit.spec.arrays import Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior

NAME = "group normal-Jeffreys"
LOG_ALPHA_EPSILON = 1e-8


def log_alpha(z_mu: Float64Array, z_logvar: Float64Array) -> Float64Array:
    """log alpha = z_logvar - log(z_mu^2 + 1e-8), per gate; large where the gate is mostly noise."""
    return np.asarray(z_logvar - np.log(z_mu**2 + LOG_ALPHA_EPSILON))


def product_variance(
    mean: Float64Array, variance: Float64Array, z_mean: Float64Array, z_variance: Float64Array
) -> Float64Array:
    """Var[z w] = z_mean^2 variance + z_variance mean^2 + z_variance variance, z and w independent.

    Source: Louizos, Ullrich and Welling 2017, compression.py.
    """
    return np.asarray(z_mean**2 * variance + z_variance * mean**2 + z_variance * variance)


def layer_posterior(name: str, tensors: Tensors) -> LayerPosterior:
    """Moments of the twin's weight and bias, and log alpha per gate.

    E[W] = weight_mu z_mu; Var[W] = product_variance; likewise the bias of a convolution.
    """
    axis = _gate_axis(name, tensors)
    weight_mean, weight_variance = _moments(tensors, "weight")
    gate_mean, gate_variance = _moments(tensors, "z")
    z_mean = along(axis, weight_mean.ndim, gate_mean)
    z_variance = along(axis, weight_mean.ndim, gate_variance)
    mean = {"weight": weight_mean * z_mean}
    variance = {"weight": product_variance(weight_mean, weight_variance, z_mean, z_variance)}
    gated: tuple[str, ...] = ("weight",)
    if "bias_mu" in tensors:
        bias_mean, bias_variance = _moments(tensors, "bias")
        if axis == 0:
            gated = ("weight", "bias")
            bias_variance = product_variance(bias_mean, bias_variance, gate_mean, gate_variance)
            bias_mean = bias_mean * gate_mean
        mean["bias"], variance["bias"] = bias_mean, bias_variance
    return LayerPosterior(
        name=name,
        family=NAME,
        mean=all_float32(name, mean),
        variance=all_float32(name, variance),
        gate_score=float32(name, log_alpha(gate_mean, float64(tensors["z_logvar"]))),
        gate_axis=axis,
        weight_mean=float32(name, weight_mean),
        weight_variance=float32(name, weight_variance),
        prior_variance=1.0,
        gated=gated,
    )


def sample_layer(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    """One draw of the twin's parameters: z, w and b independent, then multiplied."""
    axis = _gate_axis("", tensors)
    z = _draw(tensors, "z", generator)
    weight = _draw(tensors, "weight", generator)
    parameters = {"weight": weight * along(axis, weight.ndim, z)}
    if "bias_mu" in tensors:
        bias = _draw(tensors, "bias", generator)
        parameters["bias"] = bias * z if axis == 0 else bias
    return {key: value.astype(np.float32) for key, value in parameters.items()}


def _gate_axis(name: str, tensors: Tensors) -> int:
    """Axis of the weight that z multiplies: 1 for a linear layer, 0 for a convolution."""
    weight = tensors["weight_mu"].shape
    match len(weight):
        case 2:
            axis = 1
        case 3 | 4:
            axis = 0
        case _:
            raise CheckpointError(
                f"layer '{name}': weight_mu of shape {weight} belongs to no linear layer, "
                "Conv1d or Conv2d; only those can be folded"
            )
    expected: dict[str, set[Shape]] = {
        "weight_logvar": {weight},
        "z_mu": {(weight[axis],)},
        "z_logvar": {(weight[axis],)},
        "bias_mu": {(weight[0],)},
        "bias_logvar": {(weight[0],)},
    }
    require_shapes(name, tensors, "weight_mu", expected)
    return axis


def _moments(tensors: Tensors, part: str) -> tuple[Float64Array, Float64Array]:
    return float64(tensors[f"{part}_mu"]), exponential(tensors[f"{part}_logvar"])


def _draw(tensors: Tensors, part: str, generator: np.random.Generator) -> Float64Array:
    return draw(*_moments(tensors, part), generator)


def _is_convolution(tensors: Tensors) -> bool:
    return tensors["weight_mu"].ndim == 4


def _kernel_width_hides_axis(tensors: Tensors) -> bool:
    shape = tensors["weight_mu"].shape
    return len(shape) == 4 and shape[0] == shape[-1] and shape[0] > 1


def _gates_untrained(tensors: Tensors) -> bool:
    gates = float64(tensors["z_logvar"])
    return gates.size > 1 and bool(np.ptp(log_alpha(float64(tensors["z_mu"]), gates)) < 1e-3)


GROUP_NORMAL_JEFFREYS = Family(
    name=NAME,
    signature=frozenset({"z_mu", "z_logvar", "weight_mu", "weight_logvar"}),
    optional=(frozenset({"bias_mu", "bias_logvar"}),),
    posterior=layer_posterior,
    sample=sample_layer,
    gate_rule=GateRule(
        score="log alpha",
        closes=Closes.AT_OR_ABOVE,
        threshold=None,
        source="thresholds are read off a histogram of log alpha per layer; the author's script "
        "uses -2.8, -3 and -5 for its own three layers and gives no default",
    ),
    eval_forward=EvalForward.MEAN,
    source="Louizos, Ullrich and Welling 2017, 'Bayesian compression for deep learning'; "
    "KarenUllrich/Tutorial_BayesianCompressionForDL f1e7c79",
    traps=(
        Trap(
            "the reference code's compute_posterior_params multiplies the gates along the kernel "
            "width, which this layer's equal sizes hide; the gates are applied to output channels",
            _kernel_width_hides_axis,
        ),
        Trap(
            "the reference code's deterministic=True leaves the bias of a convolution unscaled "
            "while eval() scales it; the eval() network is folded",
            lambda tensors: _is_convolution(tensors) and "bias_mu" in tensors,
        ),
        Trap("all gates have the same log alpha: they look untrained", _gates_untrained),
    ),
)
