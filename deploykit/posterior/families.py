"""The table of posterior families. A new family is one module and one line here."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from deploykit.errors import CheckpointError
from deploykit.posterior import bayesian_torch, torchbnn
from deploykit.posterior.bayesian_bits import BAYESIAN_BITS
from deploykit.posterior.bayesian_cnn import BAYESIAN_CNN
from deploykit.posterior.blitz import BLITZ, BLITZ_LSTM
from deploykit.posterior.diagonal import FORMATS
from deploykit.posterior.family import Family
from deploykit.posterior.group_horseshoe import GROUP_HORSESHOE
from deploykit.posterior.group_normal_jeffreys import GROUP_NORMAL_JEFFREYS
from deploykit.posterior.information_bottleneck import INFORMATION_BOTTLENECK
from deploykit.posterior.l0 import L0
from deploykit.posterior.masked_weights import MASKED_WEIGHTS
from deploykit.posterior.options import Numerics
from deploykit.posterior.structured_bayesian_pruning import SBP, SBP_GATES
from deploykit.posterior.torch_uncertainty import TORCH_UNCERTAINTY
from deploykit.posterior.variational_dropout import VARIATIONAL_DROPOUT

FAMILIES: tuple[Family, ...] = (
    *BAYESIAN_BITS,
    BAYESIAN_CNN,
    bayesian_torch.CONVOLUTION,
    bayesian_torch.LINEAR,
    bayesian_torch.LSTM,
    bayesian_torch.QUANTIZED,
    BLITZ,
    BLITZ_LSTM,
    GROUP_HORSESHOE,
    GROUP_NORMAL_JEFFREYS,
    INFORMATION_BOTTLENECK,
    *L0,
    MASKED_WEIGHTS,
    SBP,
    SBP_GATES,
    TORCH_UNCERTAINTY,
    torchbnn.BATCH_NORM,
    torchbnn.WEIGHTED,
    *VARIATIONAL_DROPOUT,
)

DETERMINISTIC = "deterministic"
"""Stands for the family of a layer that has no posterior."""

__all__ = ["DETERMINISTIC", "FAMILIES", "Family", "families_in", "family_named"]


def families_in(numerics: Numerics) -> tuple[Family, ...]:
    """The table, its rows computed in this arithmetic."""
    match numerics:
        case Numerics.EXACT:
            return FAMILIES
        case Numerics.REFERENCE:
            return tuple(
                replace(family, posterior=family.evaluated or family.posterior)
                for family in FAMILIES
            )
        case _:
            assert_never(numerics)


def family_named(name: str) -> Family:
    """The row of the table with this name."""
    every = (*FAMILIES, *FORMATS.values())
    for family in every:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in every)
    raise CheckpointError(f"no posterior family is called '{name}'; known families: {known}")
