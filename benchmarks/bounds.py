"""A figure, its bound, and whether it holds: one printed line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """`value` has to be at most (or at least) `limit`."""

    name: str
    value: float
    limit: float
    sense: str = "at most"

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


def print_bounds(bounds: Sequence[Bound]) -> int:
    """Print every bound; 1 if any is missed, else 0."""
    for bound in bounds:
        verdict = "ok  " if bound.holds else "MISS"
        print(f"{verdict} {bound.name}: {bound.value:.6g} ({bound.sense} {bound.limit:g})")
    return int(not all(bound.holds for bound in bounds))
