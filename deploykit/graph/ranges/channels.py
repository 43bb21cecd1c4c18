"""Which channels of which tensors stand or fall together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.graph.channels.labels import Atoms
from deploykit.spec.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Channels:
    """axis: of the tensor, along which its channels run. atoms: [C], the set each belongs to."""

    axis: int
    atoms: IntArray

    def __len__(self) -> int:
        return len(self.atoms)


class PinnedAtoms(Atoms):
    """Sets of channels that are added, multiplied or filtered one by one.

    A pinned set holds a channel that has to stay: of a graph input or output, or one that an
    operator without a rule reads or computes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pins: list[IntArray] = []

    def pin(self, atoms: IntArray) -> None:
        """Say that these have to stay."""
        self._pins.append(atoms)

    def settle(self) -> tuple[IntArray, BoolArray]:
        """The set of every atom, and by set whether it is pinned."""
        sets, count = self.resolve()
        pinned = np.zeros(count, dtype=np.bool_)
        for atoms in self._pins:
            pinned[sets[atoms]] = True
        return sets, pinned
