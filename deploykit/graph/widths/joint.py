"""Several runtimes' tables as one, for a network that is written for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploykit.graph.widths.table import LayerKind, Side, WidthTable


@dataclass(frozen=True)
class JointTable:
    """parts: one table per runtime; the network has one width for a tensor on all of them.

    A cost is the mean of the parts', each relative to a MAC at a width that its kernels like: a
    width that one runtime is much faster at wins where the others hardly mind it.
    """

    parts: tuple[WidthTable, ...]

    @property
    def target(self) -> str:
        """Names of the parts."""
        return _joined(part.target for part in self.parts)

    @property
    def runtime(self) -> str:
        """Runtimes of the parts, with their versions."""
        return _joined(part.runtime for part in self.parts)

    @property
    def date(self) -> str:
        """When the parts were measured."""
        return _joined(part.date for part in self.parts)

    def side_cost(self, kind: LayerKind, side: Side, width: int, other: int) -> float:
        """See WidthTable.side_cost."""
        costs = [part.side_cost(kind, side, width, other) for part in self.parts]
        return sum(costs) / len(costs)

    def margin(self, kind: LayerKind) -> float:
        """The largest of the parts'."""
        return max(part.margin(kind) for part in self.parts)


def joint(tables: Sequence[WidthTable]) -> WidthTable | JointTable:
    """One table stays what it is."""
    return tables[0] if len(tables) == 1 else JointTable(tuple(tables))


def _joined(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
