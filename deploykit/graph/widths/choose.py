"""The width that a tensor is cheapest at: removal may leave dead channels, or add zero ones.

Total cost of a tensor's layers at width c:

    cost(c) = sum over its layers of weight * table.side_cost(kind, side, c, other)

with c repeated and beside other channels where the layer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploykit.graph.widths.table import LayerKind, Side

TILE = 16
LARGEST_GROWTH = 6
"""A width above LARGEST_GROWTH * TILE grows by at most a third, below it to the next TILE."""
TIE = 0.01
"""Predicted times that differ by less are equal."""


class Costs(Protocol):
    """A WidthTable, or several that were joined."""

    def side_cost(self, kind: LayerKind, side: Side, width: int, other: int) -> float:
        """See WidthTable.side_cost."""
        ...

    def margin(self, kind: LayerKind) -> float:
        """See WidthTable.margin."""
        ...


@dataclass(frozen=True)
class Use:
    """A layer that touches the tensor.

    other: width on the layer's other side; a depthwise layer has none, and it is not looked at.
    weight: output positions * taps, for all groups.
    beside: channels of other tensors on the same side (a concatenation's).
    repeat: how often each channel stands there (positions, where a linear reads a flattened one).
    """

    kind: LayerKind
    side: Side
    other: int
    weight: float
    beside: int = 0
    repeat: int = 1

    def cost(self, width: int, table: Costs) -> float:
        """Predicted time at a width of the tensor, in MACs at a good width."""
        here = self.beside + self.repeat * width
        return self.weight * table.side_cost(self.kind, self.side, here, self.other)


def predicted_cost(width: int, layers: Sequence[Use], table: Costs) -> float:
    """Total predicted time of a tensor's layers at a width, in MACs at a good width."""
    return sum(layer.cost(width, table) for layer in layers)


def largest_width(kept: int) -> int:
    """The widest that alignment makes of `kept` channels: a third more, or the next 16.

    The steps double with the width, so that every width between `kept` and the result has the same
    one: 97 .. 128 -> 128, 129 .. 160 -> 160. Examples: 3 -> 16, 60 -> 64, 90 -> 96, 200 -> 256.
    """
    step = TILE
    while kept > LARGEST_GROWTH * step:
        step *= 2
    return -(-kept // step) * step


def best_width(kept: int, available: int | None, layers: Sequence[Use], table: Costs) -> int:
    """The cheapest width for a tensor that needs `kept` channels.

    available: channels it had before removal, an upper limit; None where zero channels may be
    added. Ties, to within TIE, go to the smaller width. A gain within the table's margins proves
    nothing, and leaves the width as it is. What comes back is never predicted to be slower than
    `kept`, and asking again for it changes nothing.
    """
    limit = largest_width(kept) if available is None else min(available, largest_width(kept))
    believed = sum(layer.cost(kept, table) * (1 - table.margin(layer.kind)) for layer in layers)
    costs = {
        width: predicted_cost(width, layers, table) for width in range(kept, max(kept, limit) + 1)
    }
    least = min(costs.values())
    if not least < believed:
        return kept
    return next(
        width for width, cost in costs.items() if cost <= (1 + TIE) * least and cost <= costs[kept]
    )
