"""The layers of kumar-shridhar/PyTorch-BayesianCNN: BBBLinear and BBBConv2d, of BBB and BBB_LRT.

sigma = log(1 + e^rho). forward(x, sample=True) draws in eval mode too, and the repository's
ModuleWrapper never passes sample=False. The prior is not in the file.
Source: layers/BBB and layers/BBB_LRT of the repository; Shridhar, Laumann and Liwicki 2019.
"""

from __future__ import annotations

from deploykit.posterior.mean_field import Gaussian, Layout, mean_field, no_prior, rho

BAYESIAN_CNN = mean_field(
    name="PyTorch-BayesianCNN",
    layout=Layout(
        weight=Gaussian("W_mu", "W_rho"),
        bias=Gaussian("bias_mu", "bias_rho"),
        deviation=rho,
        prior_variance=no_prior,
        copies={},
    ),
    signature=frozenset({"W_mu", "W_rho"}),
    optional=(frozenset({"bias_mu", "bias_rho"}),),
    source="kumar-shridhar/PyTorch-BayesianCNN, layers/BBB and layers/BBB_LRT",
)
