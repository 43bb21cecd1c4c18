"""VIBNet's InformationBottleneck: a layer of Gaussian gates z ~ N(post_z_mu, exp(post_z_logD)).

Evaluation multiplies channel c by post_z_mu[c] where log alpha < 0, else by zero; the mean may be
negative. log alpha = post_z_logD - log(post_z_mu^2 + 1e-8). prior_z_logD is not used.
Source: Dai, Zhu, Guo and Wipf 2018, 'Compressing neural networks using the variational information
bottleneck'; zhuchen03/VIBNet 2ebc51c.
"""

from __future__ import annotations

import numpy as np

from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap, TwinKind
from deploykit.posterior.gated import GatedLayer, Gates, gate_layer, gated_posterior, gated_sample
from deploykit.posterior.group_normal_jeffreys import log_alpha
from deploykit.posterior.moments import draw, exponential, float64
from deploykit.spec.arrays import Float64Array, Tensors

NAME = "variational information bottleneck"


def _layer(tensors: Tensors) -> GatedLayer:
    return gate_layer(tensors["post_z_mu"].size)


def _gates(tensors: Tensors) -> Gates:
    mean, log_variance = float64(tensors["post_z_mu"]), float64(tensors["post_z_logD"])
    return Gates(mean, exponential(log_variance), log_alpha(mean, log_variance))


def _drawn(tensors: Tensors, generator: np.random.Generator) -> Float64Array:
    gates = _gates(tensors)
    return draw(gates.value, gates.variance, generator)


INFORMATION_BOTTLENECK = Family(
    name=NAME,
    signature=frozenset({"post_z_mu", "post_z_logD"}),
    optional=(frozenset({"prior_z_logD"}),),
    posterior=gated_posterior(NAME, _layer, _gates),
    sample=gated_sample(_layer, _drawn),
    gate_rule=GateRule(
        score="log alpha",
        closes=Closes.AT_OR_ABOVE,
        threshold=0.0,
        source="mask_thresh = 0 of zhuchen03/VIBNet: noise as large as the mean",
    ),
    eval_forward=EvalForward.MASKED_MEAN,
    source="Dai et al. 2018; zhuchen03/VIBNet 2ebc51c",
    traps=(
        Trap(
            "some gates are negative, which does not commute with ReLU or max pooling: those "
            "channels keep their factor where one follows",
            lambda tensors: bool((tensors["post_z_mu"] < 0).any()),
        ),
        Trap(
            "masking=True of the library multiplies by 0 and 1 instead of the means; the network "
            "is folded with the means, as it evaluates by default",
            lambda tensors: bool(np.abs(tensors["post_z_mu"] - 1.0).max(initial=0.0) > 0.05),
        ),
    ),
    twin=TwinKind.CHANNEL_SCALE,
    fits=lambda tensors: tensors["post_z_mu"].ndim == 1,
)
