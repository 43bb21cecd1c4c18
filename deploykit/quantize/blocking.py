"""How a layer's weights split into blocks whose rounding errors can make up for each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.spec.arrays import AnyArray, Float64Array

LARGEST_BLOCK = 1280
"""Inputs of one output beyond which second moments cost more than the rest of the planning."""


@dataclass(frozen=True)
class Blocking:
    """A weight [O, I, ...] of `groups` groups, each in `parts` blocks of I/parts input channels.

    One block is [R, n]: R = O/groups outputs of n = I/parts * taps weights each. Blocks are in the
    order of the layer's input channels, groups * I of them.
    """

    groups: int
    parts: int

    def split(self, weight: AnyArray) -> AnyArray:
        """[O, I, ...] -> [B, R, n] with B = groups * parts"""
        outputs = len(weight)
        rows = weight.reshape(self.groups, outputs // self.groups, self.parts, -1)
        return rows.transpose(0, 2, 1, 3).reshape(self.groups * self.parts, rows.shape[1], -1)

    def join(self, blocks: AnyArray, shape: tuple[int, ...]) -> AnyArray:
        """[B, R, n] -> [O, I, ...], what `split` undoes."""
        rows = blocks.reshape(self.groups, self.parts, blocks.shape[1], -1)
        return rows.transpose(0, 2, 1, 3).reshape(shape)

    def by_row(self, sums: AnyArray) -> Float64Array:
        """[B, R] -> [O], added up over the blocks of each row."""
        return np.asarray(sums.reshape(self.groups, self.parts, -1).sum(axis=1).reshape(-1))

    def split_inputs(self, patches: AnyArray) -> AnyArray:
        """What the weights are multiplied with: [P, C, taps] -> [B, P, n]"""
        positions = len(patches)
        return patches.reshape(positions, self.groups * self.parts, -1).transpose(1, 0, 2)


def blocking_of(weight: AnyArray, channels: int) -> Blocking:
    """One block per group, or one per input channel where a group's would be too large.

    channels: of the layer's input.
    """
    inputs = weight.shape[1]
    whole = weight[0].size <= LARGEST_BLOCK
    return Blocking(channels // inputs, 1 if whole else inputs)
