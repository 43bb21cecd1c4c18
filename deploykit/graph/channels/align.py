"""Widths that kernels like: dead channels stay where that makes the layers around them faster.

Channels that lie in the same tensors form a block: what one convolution makes, what a residual sum
carries. A block keeps some of its dead channels, as zeros, up to the width at which the layers that
read or make it cost least in total. The result does not change; a width is never raised above what
the block had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.rule import Site
from deploykit.graph.layer_work import layer_kind, positions_and_taps
from deploykit.graph.options import Measured, MultipleOf
from deploykit.graph.widths.choose import Use, best_width, predicted_cost
from deploykit.graph.widths.table import LayerKind, Side
from deploykit.spec.arrays import BoolArray, IntArray
from deploykit.spec.removal import WidenedBlock

ROUNDS = 2
"""How often every block is looked at: its best width depends on its neighbours'."""


@dataclass(frozen=True)
class _Block:
    """atoms: [n] ascending. tensors: that hold them."""

    atoms: IntArray
    tensors: tuple[str, ...]


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
    blocks = _blocks(sites, labels, kept)
    base = kept.copy()
    widths: dict[int, WidenedBlock] = {}
    for _ in range(ROUNDS):
        for number, block in enumerate(blocks):
            spare = block.atoms[~base[block.atoms] & ~fragile[block.atoms]]
            needed = int(base[block.atoms].sum())
            if not needed or not len(spare):
                continue
            uses = _uses(block, sites, labels, kept)
            width = _width(needed, needed + len(spare), uses, alignment)
            kept[spare] = False
            kept[spare[: width - needed]] = True
            widths[number] = WidenedBlock(
                block.tensors, needed, width, _gain(needed, width, uses, alignment)
            )
    return tuple(found for found in widths.values() if found.width > found.needed)


def _width(
    needed: int, available: int, uses: Sequence[Use], alignment: MultipleOf | Measured
) -> int:
    match alignment:
        case MultipleOf(step):
            return min(-(-needed // step) * step, available)
        case Measured(table):
            return best_width(needed, available, uses, table)
        case _:
            assert_never(alignment)


def _gain(
    needed: int, width: int, uses: Sequence[Use], alignment: MultipleOf | Measured
) -> float | None:
    """Predicted time of the block's layers without alignment, over that with it."""
    if not isinstance(alignment, Measured) or not uses:
        return None
    before = predicted_cost(needed, uses, alignment.table)
    return before / predicted_cost(width, uses, alignment.table)


def _blocks(
    sites: Sequence[Site], labels: Mapping[str, Labels], kept: BoolArray
) -> tuple[_Block, ...]:
    """Atoms that lie in the same tensors, cut along one axis, and in no grouped convolution."""
    generator = np.random.default_rng(0)
    signature = np.zeros(len(kept), dtype=np.uint64)
    excluded = np.zeros(len(kept), dtype=bool)
    for held in labels.values():
        mark = generator.integers(0, 2**63, dtype=np.uint64)
        signature[np.unique(held)] ^= mark
        if sum(size > 1 for size in held.shape) > 1:
            excluded[held.reshape(-1)] = True
    for site in sites:
        if isinstance(site.operator, Mixing) and site.operator.layout.groups > 1:
            for name in (*site.inputs, *site.outputs):
                excluded[labels[name].reshape(-1)] = True
    groups: dict[int, list[int]] = {}
    for atom in np.flatnonzero(~excluded):
        groups.setdefault(int(signature[atom]), []).append(int(atom))
    holders: dict[int, list[str]] = {}
    for name, held in labels.items():
        for mark in np.unique(signature[held]):
            holders.setdefault(int(mark), []).append(name)
    return tuple(
        _Block(np.array(atoms), tuple(holders[mark]))
        for mark, atoms in groups.items()
        if len(atoms) > 1
    )


def _uses(
    block: _Block, sites: Sequence[Site], labels: Mapping[str, Labels], kept: BoolArray
) -> list[Use]:
    inside = np.zeros(len(kept), dtype=bool)
    inside[block.atoms] = True
    held = set(block.tensors)
    uses = []

    def use(kind: LayerKind, side: Side, other: int, weight: float, tensor: str) -> None:
        atoms = labels[tensor].reshape(-1)
        own = inside[atoms]
        repeat = int(own.sum()) // max(int(np.unique(atoms[own]).size), 1)
        beside = int(kept[atoms[~own]].sum())
        uses.append(Use(kind, side, other, weight, beside, max(repeat, 1)))

    for site in sites:
        if not isinstance(site.operator, Mixing | Depthwise):
            continue
        source, output = site.inputs[0], site.outputs[0]
        kind, weight = layer_kind(site.node), positions_and_taps(site.node)
        if isinstance(site.operator, Depthwise):
            if output in held:
                use(LayerKind.DEPTHWISE, Side.OUTPUTS, 1, weight, output)
            continue
        widths = {name: max(int(kept[labels[name]].sum()), 1) for name in (source, output)}
        if source in held:
            use(kind, Side.INPUTS, widths[output], weight, source)
        if output in held:
            use(kind, Side.OUTPUTS, widths[source], weight, output)
    return uses
