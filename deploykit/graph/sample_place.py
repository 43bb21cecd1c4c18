"""Where a tensor holds the samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SamplePlace:
    """Along `axis`, whose length is outer * batch * inner.

    (0, 1, 1) is [N, ...]; (0, 1, 8) is [N * 8, ...], as where heads are stacked behind samples.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def alone(self) -> bool:
        """Whether the axis holds nothing else."""
        return self.outer == self.inner == 1


FRONT = SamplePlace(0)
"""Of a network's inputs and outputs."""


def after_reshape(place: SamplePlace, shape: Shape, into: Shape, batch: int) -> SamplePlace | None:
    """Where elements [shape] hold the samples once they are [into]; None: along no one axis.

    A batch of one leaves a choice: an axis of its own (the one that it has, or another of length
    one), then not the last axis, for rows are merged with samples and features are not, then an
    axis divided as it was, then the front of one, as where samples and heads are merged.
    """
    before = prod(shape[: place.axis]) * place.outer
    found = []
    for axis, length in enumerate(into):
        ahead = prod(into[:axis])
        if before % ahead or length % batch:
            continue
        outer = before // ahead
        if (length // batch) % outer == 0:
            found.append(SamplePlace(axis, outer, length // batch // outer))
    return min(
        found,
        key=lambda one: (
            not one.alone,
            one.axis == len(into) - 1 > 0,
            (one.outer, one.inner) != (place.outer, place.inner),
            one.outer != 1,
            one.axis != place.axis,
            one.axis,
        ),
        default=None,
    )
