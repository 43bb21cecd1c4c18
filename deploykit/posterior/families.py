"""The table of posterior families. A new family is one module and one line here."""

from __future__ import annotations

from deploykit.errors import CheckpointError
from deploykit.posterior.diagonal import FORMATS
from deploykit.posterior.family import Family
from deploykit.posterior.group_normal_jeffreys import GROUP_NORMAL_JEFFREYS

FAMILIES: tuple[Family, ...] = (GROUP_NORMAL_JEFFREYS,)

DETERMINISTIC = "deterministic"
"""Stands for the family of a layer that has no posterior."""

__all__ = ["DETERMINISTIC", "FAMILIES", "Family", "family_named"]


def family_named(name: str) -> Family:
    """The row of the table with this name."""
    every = (*FAMILIES, *FORMATS.values())
    for family in every:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in every)
    raise CheckpointError(f"no posterior family is called '{name}'; known families: {known}")
