"""Which channels of an output were cut away, found by comparing values and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.spec.arrays import AnyArray, Tensors

TOLERANCE = 1e-4
"""Relative to the largest |value| of the output: what float32 kernels make of one channel."""


@dataclass(frozen=True)
class KeptChannels:
    """Of an output that lost channels: their axis, and which of before are left."""

    axis: int
    channels: tuple[int, ...]


def kept_channels(before: Sequence[Tensors], after: Sequence[Tensors]) -> dict[str, KeptChannels]:
    """By output that became smaller, where its channels stood; outputs of equal runs, in order.

    Every channel of after is one of before, in the same order, and each channel in between is
    constant over all runs and positions. An output where this does not hold is left out.
    """
    found = {}
    for name, values in before[0].items():
        new = after[0].get(name)
        if new is None or new.ndim != values.ndim:
            continue
        axes = [axis for axis in range(values.ndim) if values.shape[axis] != new.shape[axis]]
        if len(axes) == 1 and new.shape[axes[0]] < values.shape[axes[0]]:
            channels = _matched(
                _by_channel([run[name] for run in before], axes[0]),
                _by_channel([run[name] for run in after], axes[0]),
            )
            if channels is not None:
                found[name] = KeptChannels(axes[0], channels)
    return found


def without_dropped(outputs: Tensors, kept: Mapping[str, KeptChannels]) -> dict[str, AnyArray]:
    """Outputs of before, cut to the channels that are there still."""
    return {
        name: np.take(values, kept[name].channels, kept[name].axis) if name in kept else values
        for name, values in outputs.items()
    }


def _by_channel(runs: Sequence[AnyArray], axis: int) -> AnyArray:
    """[channels, values of all runs]"""
    rows = [np.moveaxis(run, axis, 0).reshape(run.shape[axis], -1) for run in runs]
    return np.concatenate(rows, axis=1).astype(np.float64)


def _matched(before: AnyArray, after: AnyArray) -> tuple[int, ...] | None:
    """The rows of `before` that are those of `after`; None where another row is no constant."""
    bound = TOLERANCE * float(np.abs(before).max(initial=0.0))
    channels: list[int] = []
    for index, row in enumerate(before):
        place = len(channels)
        if place < len(after) and np.abs(row - after[place]).max(initial=0.0) <= bound:
            channels.append(index)
        elif np.ptp(row) > bound:
            return None
    return tuple(channels) if len(channels) == len(after) else None
