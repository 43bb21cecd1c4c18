"""SWAG's running means of weights and of squared weights, by parameter, as two codes write them.

                     reference code             torch-uncertainty
means, squares       base.X_mean, _sq_mean      model.swag_stats.X_mean, _sq_mean
low-rank part        base.X_cov_mat_sqrt        model.swag_stats.X_covariance_sqrt
other tensors        base.X                     core_model.X, beside the last weights of training
number of networks   n_models                   num_avgd_models
smallest variance    1e-30                      1e-6
variance = X_sq_mean - X_mean^2, at least the smallest; the low-rank part is left out of it.
Source: Maddox et al. 2019, section 3; wjmaddox/swa_gaussian; torch-uncertainty 0.13, methods/swag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Named = dict[str, torch.Tensor]
Held = TypeVar("Held")
MEAN, SQUARE = "_mean", "_sq_mean"
STATISTICS = "model.swag_stats."
"""In front in every file of torch-uncertainty, with or without a Lightning module around it."""


@dataclass(frozen=True)
class Averages:
    """moments: mean and variance by parameter, float64. others: the network's other tensors."""

    moments: dict[str, tuple[torch.Tensor, torch.Tensor]]
    others: Named


def averages(tensors: Named) -> Averages | None:
    """What SWAG averaged; None where the tensors are not SWAG's."""
    squares = [key.removesuffix(SQUARE) for key in tensors if key.endswith(SQUARE)]
    if not squares or not all(f"{key}{MEAN}" in tensors for key in squares):
        return None
    if all(key.startswith(STATISTICS) for key in squares):
        return _of_torch_uncertainty(tensors, squares)
    return _of_reference_code(tensors, squares)


def _of_reference_code(tensors: Named, squares: Sequence[str]) -> Averages:
    moments = {key: _moments(tensors, key, 1e-30) for key in squares}
    others = _rest(tensors, squares, "_cov_mat_sqrt", "n_models")
    names = (*moments, *others)
    base = "base." if all(key.startswith("base.") for key in names) else ""
    return Averages(_without(base, moments), _without(base, others))


def _of_torch_uncertainty(tensors: Named, squares: Sequence[str]) -> Averages:
    """The weights of core_model are those that training ended with, which no test uses."""
    moments = _without(STATISTICS, {key: _moments(tensors, key, 1e-6) for key in squares})
    rest = _rest(tensors, squares, "_covariance_sqrt", "num_avgd_models")
    others = _without("core_model.", _without("model.", rest))
    return Averages(moments, {key: value for key, value in others.items() if key not in moments})


def _moments(tensors: Named, key: str, smallest: float) -> tuple[torch.Tensor, torch.Tensor]:
    mean, square = (
        tensors[f"{key}{end}"].detach().to("cpu", torch.float64) for end in (MEAN, SQUARE)
    )
    return mean, (square - mean**2).clamp(min=smallest)


def _rest(tensors: Named, squares: Sequence[str], low_rank: str, counter: str) -> Named:
    read = {f"{key}{end}" for key in squares for end in (MEAN, SQUARE, low_rank)}
    return {
        key: value
        for key, value in tensors.items()
        if key not in read and key.rpartition(".")[2] != counter
    }


def _without(prefix: str, named: Mapping[str, Held]) -> dict[str, Held]:
    return {key.removeprefix(prefix): value for key, value in named.items()}
