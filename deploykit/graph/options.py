"""What a user may choose about channel removal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

from deploykit.graph.widths.joint import JointTable
from deploykit.graph.widths.table import WidthTable


class DeadOutputs(Enum):
    """Channels of the graph's outputs that are constant: kept in place, or cut away."""

    KEEP = "keep"
    DROP = "drop"


class Groups(Enum):
    """What grouped convolutions become whose groups keep different numbers of channels.

    equal: as wide as the widest group needs; split: a convolution for every width, where that
    leaves fewer MACs.
    """

    EQUAL = "equal"
    SPLIT = "split"


class Tolerance(Enum):
    """Which channels count as dead: exact zeros only, or what float32 rounding hides too."""

    EXACT = "exact"
    FLOAT32 = "float32"


@dataclass(frozen=True)
class MultipleOf:
    """Widths are rounded up to a multiple of `step`."""

    step: int


@dataclass(frozen=True)
class Measured:
    """Widths are rounded up where a measured table says that it is faster.

    most_added: the largest width, over the one there is, that zero channels may be added for.
    """

    table: WidthTable | JointTable
    most_added: float = inf


@dataclass(frozen=True)
class RemovalOptions:
    """max_growth: how far merging constants may stretch a reader's weight range.

    align: None leaves every width as removal makes it; note: why, if nobody asked for that.
    narrow: costs by which a layer computes its live channels alone and these are copied to their
    places; None: the union of what its tensor needs.
    """

    dead_outputs: DeadOutputs = DeadOutputs.KEEP
    tolerance: Tolerance = Tolerance.EXACT
    max_growth: float = 1.0
    align: MultipleOf | Measured | None = None
    note: str = ""
    narrow: WidthTable | None = None
    groups: Groups = Groups.EQUAL
