"""Channels that lie in the same tensors, and the layers around them.

What one convolution makes, what a residual sum carries: such a block has one width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.rule import Site
from deploykit.graph.layer_work import layer_kind, positions_and_taps
from deploykit.graph.widths.choose import Use
from deploykit.graph.widths.table import LayerKind, Side
from deploykit.spec.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Block:
    """atoms: [n] ascending. tensors: that hold them."""

    atoms: IntArray
    tensors: tuple[str, ...]


def find_blocks(
    sites: Sequence[Site], labels: Mapping[str, Labels], kept: BoolArray
) -> tuple[Block, ...]:
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
        Block(np.array(atoms), tuple(holders[mark]))
        for mark, atoms in groups.items()
        if len(atoms) > 1
    )


def layers_around(
    block: Block, sites: Sequence[Site], labels: Mapping[str, Labels], kept: BoolArray
) -> list[Use]:
    """What a cost table has to know of every layer that makes or reads the block.

    kept: by atom, whether it stays; the widths on the other side are counted by it.
    """
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
