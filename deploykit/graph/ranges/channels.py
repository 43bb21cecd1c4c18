"""Which channels of which tensors stand or fall together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deploykit.spec.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Channels:
    """axis: of the tensor, along which its channels run. atoms: [C], the set each belongs to."""

    axis: int
    atoms: IntArray

    def __len__(self) -> int:
        return len(self.atoms)


@dataclass
class Atoms:
    """Disjoint sets of channels that are added, multiplied or filtered one by one (union-find).

    A pinned set holds a channel that has to stay: of a graph input or output, or one that an
    operator without a rule reads or computes.
    """

    parent: list[int] = field(default_factory=list)
    pins: list[int] = field(default_factory=list)

    def fresh(self, count: int) -> IntArray:
        """`count` channels that nothing is coupled to yet."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def join(self, left: IntArray, right: IntArray) -> None:
        """Couple channels pair by pair."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            self.parent[self._root(one)] = self._root(other)

    def pin(self, atoms: IntArray) -> None:
        """Say that these have to stay."""
        self.pins.extend(atoms.tolist())

    def roots(self, atoms: IntArray) -> IntArray:
        """One number per set."""
        return np.array([self._root(atom) for atom in atoms.tolist()], dtype=np.intp)

    def pinned(self) -> BoolArray:
        """[all atoms], by number of the set."""
        held = np.zeros(len(self.parent), dtype=np.bool_)
        held[self.roots(np.array(self.pins, dtype=np.intp))] = True
        return held

    def _root(self, atom: int) -> int:
        while self.parent[atom] != atom:
            self.parent[atom] = self.parent[self.parent[atom]]
            atom = self.parent[atom]
        return atom
