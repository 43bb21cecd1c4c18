"""Bits by layer under a limit: every allocation that no other beats in cost and sensitivity.

Layer after layer, the partial allocations found so far meet all widths of the next layer; of the
results those stay that are cheaper, or less sensitive, than any other. Exact while the front is
shorter than LONGEST; beyond, only the least sensitive of each of LONGEST equal spans of cost stays.
Source: Kellerer, Pferschy, Pisinger 2004, "Knapsack problems", section 11.5 (multiple-choice
knapsack by dynamic programming over undominated states).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.spec.allocation import LayerChoices
from deploykit.spec.arrays import AnyArray, Float64Array

LONGEST = 20_000


@dataclass(frozen=True)
class Front:
    """Undominated allocations by rising cost. picks: [P, L], bits of each layer's weight."""

    names: tuple[tuple[str, ...], ...]
    costs: Float64Array
    sensitivities: Float64Array
    picks: AnyArray

    def bits(self, place: int) -> dict[str, int]:
        """By layer."""
        return {
            layer: int(bits)
            for layers, bits in zip(self.names, self.picks[place], strict=True)
            for layer in layers
        }

    def within(self, budget: float) -> int | None:
        """Place of the least sensitive allocation that costs at most so much; None: none does."""
        place = int(np.searchsorted(self.costs, budget, side="right")) - 1
        return None if place < 0 else place


def front(choices: Sequence[LayerChoices], costs: Sequence[Mapping[int, float]]) -> Front:
    """costs: of each of the choices, by bits; of its own widths."""
    total, lost = np.zeros(1), np.zeros(1)
    picks = np.zeros((1, 0), np.int8)
    for choice, cost in zip(choices, costs, strict=True):
        widths = sorted(cost)
        price = np.array([cost[bits] for bits in widths])
        loss = np.array([choice.sensitivity.get(bits, 0.0) for bits in widths])
        sums = (total[:, None] + price).reshape(-1)
        losses = (lost[:, None] + loss).reshape(-1)
        kept = _undominated(sums, losses)
        parent, width = np.divmod(kept, len(widths))
        total, lost = sums[kept], losses[kept]
        picks = np.column_stack([picks[parent], np.array(widths, np.int8)[width]])
    return Front(tuple(one.layers for one in choices), total, lost, picks)


def _undominated(costs: Float64Array, losses: Float64Array) -> AnyArray:
    """Places by rising cost and falling loss."""
    order = np.lexsort((losses, costs))
    falling = losses[order]
    best = np.minimum.accumulate(falling)
    kept = order[np.r_[True, falling[1:] < best[:-1]]]
    if len(kept) <= LONGEST:
        return kept
    low, high = costs[kept[0]], costs[kept[-1]]
    span = np.ceil((costs[kept] - low) / (high - low) * LONGEST)
    last = np.r_[span[1:] != span[:-1], True]  # losses fall, so the last of a span has the least
    return np.asarray(kept[last])
