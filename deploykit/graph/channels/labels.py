"""Which channels of which tensors are one and the same: union-find over *atoms*.

A tensor's labels are an integer array of the tensor's rank. Along an axis that removal may shorten
it has the tensor's own size; along every other axis it has size 1. The entries are atoms: what has
the same atom, in one tensor or in several, stays or goes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from deploykit.spec.arrays import BoolArray, Float64Array, IntArray

Labels = IntArray
"""Atoms of one tensor, see the module."""

Entries = TypeVar("Entries", IntArray, Float64Array)
"""Labels, or a number for each of their entries."""


class Atoms:
    """Gives out atoms, and remembers which were declared equal."""

    def __init__(self) -> None:
        self._count = 0
        self._left: list[IntArray] = []
        self._right: list[IntArray] = []

    def fresh(self, shape: Sequence[int]) -> Labels:
        """Labels of the given shape, every entry an atom of its own."""
        size = int(np.prod(shape, dtype=np.int64))
        first, self._count = self._count, self._count + size
        return np.arange(first, self._count, dtype=np.int64).reshape(shape)

    def join(self, left: Labels, right: Labels) -> None:
        """Declare equal, entry by entry; the two broadcast against each other."""
        a, b = np.broadcast_arrays(left, right)
        self._left.append(a.reshape(-1))
        self._right.append(b.reshape(-1))

    def resolve(self) -> tuple[IntArray, int]:
        """Final atom by provisional atom, numbered from 0 without gaps, and how many there are.

        Every atom takes the smallest one that it is joined to, until nothing changes.
        """
        parent = np.arange(self._count, dtype=np.int64)
        if self._left:
            left, right = np.concatenate(self._left), np.concatenate(self._right)
            while True:
                least = np.minimum(parent[left], parent[right])
                before = parent.copy()
                for side in (left, right):
                    np.minimum.at(parent, parent[side], least)
                    np.minimum.at(parent, side, least)
                while True:
                    shorter = parent[parent]
                    if np.array_equal(shorter, parent):
                        break
                    parent = shorter
                if np.array_equal(before, parent):
                    break
        _, ids = np.unique(parent, return_inverse=True)
        ids = ids.astype(np.int64)
        return ids, int(ids.max()) + 1 if self._count else 0


def full_axis(array: Entries, axis: int, size: int) -> Entries:
    """The array with `axis` written out to `size` where it has size 1."""
    shape = list(array.shape)
    shape[axis] = size
    return np.broadcast_to(array, shape)


def other_axes_are_one(labels: Labels, axis: int) -> bool:
    """Whether the labels vary along `axis` alone."""
    return bool(labels.size == labels.shape[axis])


def keep_equally_many(rows: Labels, kept: BoolArray) -> None:
    """Mark further atoms until every row [rows, entries] keeps as many entries as the fullest.

    Atoms that already stay come first, then the row's first ones.
    """
    while True:
        counts = kept[rows].sum(axis=1)
        most = max(int(counts.max(initial=0)), 1)
        short = np.flatnonzero(counts < most)
        if not len(short):
            return
        for row in short:
            missing = rows[row][~kept[rows[row]]]
            kept[missing[: most - int(kept[rows[row]].sum())]] = True
