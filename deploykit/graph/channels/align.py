"""Widths that kernels like: dead channels stay where that makes the layers around them faster.

A block of channels keeps some of its dead ones, as zeros, up to the width at which the layers that
read or make it cost least in total. The result does not change; a width is never raised above what
the block had: passes.widen does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from deploykit.graph.channels.blocks import find_blocks, layers_around
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.rule import Site
from deploykit.graph.options import Measured, MultipleOf
from deploykit.graph.widths.choose import Use, best_width, predicted_cost
from deploykit.spec.arrays import BoolArray
from deploykit.spec.removal import WidenedBlock

ROUNDS = 2
"""How often every block is looked at: its best width depends on its neighbours'."""


def align(
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    kept: BoolArray,
    fragile: BoolArray,
    alignment: MultipleOf | Measured,
) -> tuple[WidenedBlock, ...]:
    """Mark in `kept` the dead channels that stay, and say which.

    fragile: atoms that may not hold a zero.
    """
    blocks = find_blocks(sites, labels, kept)
    base = kept.copy()
    widths: dict[int, WidenedBlock] = {}
    for _ in range(ROUNDS):
        for number, block in enumerate(blocks):
            spare = block.atoms[~base[block.atoms] & ~fragile[block.atoms]]
            needed = int(base[block.atoms].sum())
            if not needed or not len(spare):
                continue
            uses = layers_around(block, sites, labels, kept)
            width = width_by(needed, needed + len(spare), uses, alignment)
            kept[spare] = False
            kept[spare[: width - needed]] = True
            widths[number] = WidenedBlock(
                block.tensors, needed, width, predicted_gain(needed, width, uses, alignment)
            )
    return tuple(found for found in widths.values() if found.width > found.needed)


def width_by(
    needed: int, available: int | None, uses: Sequence[Use], alignment: MultipleOf | Measured
) -> int:
    """The width that a rule gives to `needed` channels; available: how many there are at most."""
    match alignment:
        case MultipleOf(step):
            width = -(-needed // step) * step
            return width if available is None else min(width, available)
        case Measured(table):
            return best_width(needed, available, uses, table)
        case _:
            assert_never(alignment)


def predicted_gain(
    needed: int, width: int, uses: Sequence[Use], alignment: MultipleOf | Measured
) -> float | None:
    """Predicted time of the block's layers without alignment, over that with it."""
    if not isinstance(alignment, Measured) or not uses:
        return None
    before = predicted_cost(needed, uses, alignment.table)
    return before / predicted_cost(width, uses, alignment.table)
