"""The layers of torchbnn 1.2: BayesLinear, BayesConv2d and BayesBatchNorm2d.

sigma = e^(log sigma); layers draw in eval mode too. `freeze()` pins one draw by saving its noise
as weight_eps and bias_eps; the mean is exported all the same. A batch norm's gamma and beta are
Gaussian too, its running statistics plain. The prior is not in the file.
BayesConv2d pads "circular" with half its padding on each side and every other padding mode with
zeros, unlike torch: a network of such layers that also pads is refused, as its twin differs.
Source: torchbnn/modules at 1.2.
"""

from __future__ import annotations

import numpy as np

from deploykit.posterior.family import ZEROS, Trap, TwinKind
from deploykit.posterior.mean_field import Gaussian, Layout, log_sigma, mean_field, no_prior
from deploykit.spec.arrays import Tensors

SOURCE = "torchbnn 1.2, Harry24k/bayesian-neural-network-pytorch"
_WEIGHT = frozenset({"weight_mu", "weight_log_sigma"})
_BIAS = frozenset({"bias_mu", "bias_log_sigma"})
_NOISE = (frozenset({"weight_eps"}), frozenset({"bias_eps"}))

_LAYOUT = Layout(
    weight=Gaussian("weight_mu", "weight_log_sigma"),
    bias=Gaussian("bias_mu", "bias_log_sigma"),
    deviation=log_sigma,
    prior_variance=no_prior,
    copies={},
    ignored=frozenset({"weight_eps", "bias_eps"}),
)
_TRAPS = (
    Trap(
        "freeze() pinned one draw of the weights, which is what the trained network computes; the "
        "mean is exported, not that draw",
        lambda tensors: "weight_eps" in tensors,
    ),
    Trap(
        "every log sigma is the same number, which is where the library starts: sigma was not "
        "trained (is the KL in the loss, and the posterior in the optimizer?)",
        lambda tensors: (
            tensors["weight_log_sigma"].size > 1 and np.ptp(tensors["weight_log_sigma"]) == 0
        ),
    ),
)


def _one_per_channel(tensors: Tensors) -> bool:
    return tensors["weight_mu"].ndim == 1


WEIGHTED = mean_field(
    name="torchbnn",
    layout=_LAYOUT,
    signature=_WEIGHT,
    optional=(_BIAS, *_NOISE),
    source=SOURCE,
    traps=_TRAPS,
    padding_modes=ZEROS,
)
BATCH_NORM = mean_field(
    name="torchbnn batch norm",
    layout=_LAYOUT,
    signature=_WEIGHT | _BIAS,
    optional=_NOISE,
    source=SOURCE,
    traps=_TRAPS,
    fits=_one_per_channel,
    twin=TwinKind.BATCH_NORM,
    plain=frozenset({"running_mean", "running_var", "num_batches_tracked"}),
)
