"""The layers of Intel's bayesian-torch 0.5.0.

Reparameterization and Flipout layers write the same keys and have the same posterior: `mu_weight`
and `rho_weight` in linear layers, `mu_kernel` and `rho_kernel` in convolutions and transposed ones;
sigma = log(1 + e^rho). They draw weights in eval mode too. The prior is not in the file, unless
it is of a release before July 2021, whose eps_* and prior_* buffers were saved.
An LSTM has two linear layers, `ih` and `hh`; its mean is torch's LSTM.
Layers after `quantize()` hold mean and sigma themselves as int8 with one scale, biases in float.
Source: bayesian_torch/layers at 0.5.0 (aa7e57b).
"""

from __future__ import annotations

import numpy as np

from deploykit.posterior.family import ZEROS, Family, Trap
from deploykit.posterior.mean_field import (
    Gaussian,
    Layout,
    OwnForward,
    mean_field,
    no_prior,
    rho,
    sigma,
)
from deploykit.posterior.moments import float64
from deploykit.posterior.recurrent import LstmLayout, Matrices, lstm
from deploykit.spec.arrays import Tensors

SOURCE = "bayesian-torch 0.5.0, IntelLabs/bayesian-torch aa7e57b"

KL_IS_A_MEAN = (
    "the library's KL is a mean over each tensor since July 2021, not a sum: unless the training "
    "code scaled it back, sigma is weakly trained, and --prune-rule snr ranks by little more than "
    "the means"
)
PADDING_MODE = (
    "only where dnn_to_bnn made the network, of layers with another padding_mode: it drops that "
    "mode, so that a deterministic twin has to pad with zeros, as the training did"
)


def _layout(part: str) -> Layout:
    return Layout(
        weight=Gaussian(f"mu_{part}", f"rho_{part}"),
        bias=Gaussian("mu_bias", "rho_bias"),
        deviation=rho,
        prior_variance=_prior_variance,
        copies={},
        ignored=_old_buffers(part) | _old_buffers("bias"),
    )


def _old_buffers(part: str) -> frozenset[str]:
    """Of files from before July 2021; a convolution calls its kernel's prior that of a weight."""
    prior = "weight" if part == "kernel" else part
    return frozenset({f"eps_{part}", f"prior_{prior}_mu", f"prior_{prior}_sigma"})


def _prior_variance(tensors: Tensors) -> float | None:
    """Of a centred prior with one sigma for all weights, where an old file holds it."""
    if "prior_weight_sigma" not in tensors:
        return None
    mean, spread = tensors["prior_weight_mu"], float64(tensors["prior_weight_sigma"])
    if np.any(mean) or np.ptp(spread):
        return None
    return float(spread.flat[0] ** 2)


def _row(name: str, part: str, traps: tuple[Trap, ...] = ()) -> Family:
    return mean_field(
        name=name,
        layout=_layout(part),
        signature=frozenset({f"mu_{part}", f"rho_{part}"}),
        optional=(frozenset({"mu_bias", "rho_bias"}), _old_buffers(part), _old_buffers("bias")),
        source=SOURCE,
        traps=(Trap(KL_IS_A_MEAN, _without_old_buffers), *traps),
        padding_modes=ZEROS,
    )


def _without_old_buffers(tensors: Tensors) -> bool:
    return not any(key.startswith("eps_") for key in tensors)


LINEAR = _row("bayesian-torch linear", "weight")
CONVOLUTION = _row(
    "bayesian-torch convolution",
    "kernel",
    (Trap(PADDING_MODE, lambda tensors: max(tensors["mu_kernel"].shape[2:], default=1) > 1),),
)

_QUANTIZED_NAMES = ("quantized_mu_weight", "quantized_sigma_weight")
_QUANTIZED_BIAS = ("quantized_mu_bias", "quantized_sigma_bias")
_STUBS = tuple(
    frozenset({f"{stub}.{index}.scale", f"{stub}.{index}.zero_point"})
    for stub in ("quant_dict", "qint_quant", "quint_quant")
    for index in range(5)
)
"""Scales of what the library's own integer forward computes, which no mean depends on."""
QUANTIZED = mean_field(
    name="bayesian-torch quantized",
    layout=Layout(
        weight=Gaussian(*_QUANTIZED_NAMES),
        bias=Gaussian(*_QUANTIZED_BIAS),
        deviation=sigma,
        prior_variance=no_prior,
        copies={},
    ),
    signature=frozenset(_QUANTIZED_NAMES),
    # A bias that came out of a batch norm alone has no sigma.
    optional=(*(frozenset({key}) for key in _QUANTIZED_BIAS), *_STUBS),
    source=SOURCE,
    own_forward=OwnForward.ROUNDS,
    padding_modes=ZEROS,
)

_OLD_LSTM_BUFFERS = tuple(
    frozenset(f"{matrix}.{key}" for matrix in ("ih", "hh") for key in _old_buffers(part))
    for part in ("weight", "bias")
)
LSTM = lstm(
    name="bayesian-torch LSTM",
    layout=LstmLayout(
        input_matrix=Gaussian("ih.mu_weight", "ih.rho_weight"),
        state_matrix=Gaussian("hh.mu_weight", "hh.rho_weight"),
        biases={
            "bias_ih_l0": Gaussian("ih.mu_bias", "ih.rho_bias"),
            "bias_hh_l0": Gaussian("hh.mu_bias", "hh.rho_bias"),
        },
        matrices=Matrices.OUTPUTS_FIRST,
        copies={},
        ignored=frozenset().union(*_OLD_LSTM_BUFFERS),
    ),
    signature=frozenset({"ih.mu_weight", "ih.rho_weight", "hh.mu_weight", "hh.rho_weight"}),
    optional=(
        frozenset({"ih.mu_bias", "ih.rho_bias", "hh.mu_bias", "hh.rho_bias"}),
        *_OLD_LSTM_BUFFERS,
    ),
    source=SOURCE,
)
