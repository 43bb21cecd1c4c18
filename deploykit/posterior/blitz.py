"""The layers of blitz-bayesian-pytorch 0.2.8: linear, convolutions, embedding and LSTM.

sigma = log(1 + e^rho); layers draw in eval mode too. Every tensor is saved twice, as `weight_mu`
and as `weight_sampler.mu`. The two share their memory only until the network is converted or moved
(`.double()`, `.cuda()`); from then on the optimizer moves the sampler's tensors, which the forward
reads, and `weight_mu` stays where training began. So the sampler's tensors are the posterior. The
prior is not in the file.
A linear layer without bias saves one all the same, which counts only where the network has it.
Source: blitz/modules at 0.2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from deploykit.posterior.family import ZEROS, Trap
from deploykit.posterior.mean_field import Gaussian, Layout, mean_field, no_prior, rho
from deploykit.posterior.recurrent import LstmLayout, Matrices, lstm
from deploykit.spec.arrays import Tensors

_SOURCE = "blitz-bayesian-pytorch 0.2.8, piEsposito/blitz-bayesian-deep-learning"
_SAMPLED = ("weight_sampler.mu", "weight_sampler.rho")
_SAMPLED_BIAS = ("bias_sampler.mu", "bias_sampler.rho")
_COPIES = {
    "weight_mu": "weight_sampler.mu",
    "weight_rho": "weight_sampler.rho",
    "bias_mu": "bias_sampler.mu",
    "bias_rho": "bias_sampler.rho",
}
_BIAS = frozenset({"bias_mu", "bias_rho", *_SAMPLED_BIAS, "bias_sampler.eps_w"})


def _stale(copies: Mapping[str, str], tensors: Tensors) -> bool:
    return any(
        copied in tensors and not np.array_equal(tensors[copied], tensors[original])
        for copied, original in copies.items()
    )


_STALE = (
    "weight_mu or bias_mu is stale: it differs from the sampler's tensor, which training moved "
    "after the network was converted or put on a GPU (blitz issue 118); the sampler's is exported, "
    "while the library's own freeze_() would compute with the stale one"
)
_LSTM_COPIES = {
    f"{part}_{own}": f"{part}_sampler.{own}"
    for part in ("weight_ih", "weight_hh", "bias")
    for own in ("mu", "rho")
}

BLITZ = mean_field(
    name="blitz",
    layout=Layout(
        weight=Gaussian(*_SAMPLED),
        bias=Gaussian(*_SAMPLED_BIAS),
        deviation=rho,
        prior_variance=no_prior,
        copies=_COPIES,
    ),
    signature=frozenset({"weight_mu", "weight_rho", *_SAMPLED, "weight_sampler.eps_w"}),
    optional=(_BIAS, frozenset({"bias_zero"})),
    source=_SOURCE,
    traps=(Trap(_STALE, partial(_stale, _COPIES)),),
    maybe_unused=_BIAS,
    padding_modes=ZEROS,
)
BLITZ_LSTM = lstm(
    name="blitz LSTM",
    layout=LstmLayout(
        input_matrix=Gaussian("weight_ih_sampler.mu", "weight_ih_sampler.rho"),
        state_matrix=Gaussian("weight_hh_sampler.mu", "weight_hh_sampler.rho"),
        biases={"bias_ih_l0": Gaussian(*_SAMPLED_BIAS)},
        matrices=Matrices.INPUTS_FIRST,
        copies=_LSTM_COPIES,
    ),
    signature=frozenset(
        {*_LSTM_COPIES, *_LSTM_COPIES.values()}
        | {f"{part}_sampler.eps_w" for part in ("weight_ih", "weight_hh", "bias")}
    ),
    optional=(),
    source=_SOURCE,
    traps=(
        Trap(_STALE, partial(_stale, _LSTM_COPIES)),
        Trap(
            "a GRU of the library, and an LSTM with peephole=True, have the same keys; both are "
            "told apart by the network alone, and refused",
            lambda _: True,
        ),
    ),
)
