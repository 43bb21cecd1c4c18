"""What merging the constants of one tensor asks of its readers' weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.graph.channels.mixing import Mixing
from deploykit.spec.arrays import AnyArray, BoolArray, Float64Array, IntArray

LARGEST_RESTATEMENT = 64.0
"""How much larger a survivor's constant may get: its tensor's range is quantized too."""

MOST_SINGLE_STEPS = 16
LEAST_STEP = 1.25
"""Numbers of survivors are tried one by one at first, then in growing steps."""


@dataclass(frozen=True)
class Reader:
    """What a merge does to the weights of one layer.

    kernel: [o, I, taps...] of its live outputs; before: [o] its largest |weight| over the inputs
    that are not constant zeros (those go anyway); leaving: [o, taps...] sum of c_j W_j over all
    constants that need not stay; loose: [I] which those are.
    """

    name: str
    kernel: AnyArray
    before: Float64Array
    values: Float64Array
    loose: BoolArray
    leaving: Float64Array

    @staticmethod
    def of(
        name: str, mixing: Mixing, live: BoolArray, values: Float64Array, gone: IntArray
    ) -> Reader:
        """values: [I] constants, NaN where there is none; gone: those that need not stay."""
        kernel = mixing.kernel(live)
        loose = np.zeros(len(values), dtype=bool)
        loose[gone] = True
        return Reader(
            name,
            kernel,
            _largest(kernel, values != 0),
            values,
            loose,
            _weighted(kernel, values, gone),
        )

    def growth(self, restated: Float64Array, survivors: IntArray) -> float:
        """How far the weight range of an output grows at most. 1.0: not at all.

        restated: [I] constants from then on.
        """
        others = survivors[~self.loose[survivors]]
        total = self.leaving + _weighted(self.kernel, self.values, others)
        share = total / (len(survivors) * float(np.abs(restated[survivors]).min()))
        inside = self.before > 0
        grown = _largest(share[:, None])[inside] / self.before[inside]
        return float(grown.max(initial=1.0))


@dataclass(frozen=True)
class Wish:
    """One tensor's constants that padded readers read.

    largest: magnitude that a constant may be restated to, other than its own. most_growth: how far
    a reader's range may grow.
    """

    tensor: str
    readers: tuple[Reader, ...]
    values: Float64Array
    gone: IntArray
    candidates: IntArray
    largest: float
    most_growth: float

    def growth(self, restated: Float64Array, survivors: IntArray) -> dict[str, float]:
        """By reader."""
        return {reader.name: reader.growth(restated, survivors) for reader in self.readers}


def to_restate(wish: Wish) -> tuple[IntArray, float]:
    """The fewest constants that can take the sum, the largest first, and what they have to be.

    None where no restatement is needed, or none would do.
    """
    order = _by_size(wish.values, wish.candidates)
    first = abs(float(wish.values[order[0]]))
    limit = min(max(wish.largest, first), LARGEST_RESTATEMENT * first)
    count = 1
    while True:
        survivors = order[:count]
        stretch = max(wish.growth(wish.values, survivors).values(), default=1.0)
        target = stretch * float(np.abs(wish.values[survivors]).min()) * (1.0 + 1e-6)
        if stretch <= wish.most_growth or not np.isfinite(target):
            return order[:0], 1.0
        if target <= limit:
            return survivors, target
        if count == len(order):
            return order[:0], 1.0
        count = min(max(count + 1, int(np.ceil(count * target / limit))), len(order))


def survivors_of(wish: Wish, restated: Float64Array) -> tuple[IntArray | None, dict[str, float]]:
    """The fewest that keep every reader's range, the largest constants first; None: all apart."""
    order = _by_size(restated, wish.candidates)
    members = np.union1d(wish.gone, wish.candidates)
    count = 1
    while count < len(members):
        survivors = order[:count]
        stretch = wish.growth(restated, survivors)
        worst = max(stretch.values())
        if worst <= wish.most_growth:
            return np.sort(survivors), stretch
        if count == len(order):
            return None, {}
        step = max(min(worst, 1e6), 1.0 if count < MOST_SINGLE_STEPS else LEAST_STEP)
        count = min(max(count + 1, int(np.ceil(count * step))), len(order))
    return (np.sort(members), {}) if not len(wish.gone) else (None, {})


def _by_size(values: Float64Array, among: IntArray) -> IntArray:
    """The largest first."""
    return among[np.argsort(-np.abs(values[among]), kind="stable")]


def _largest(kernel: AnyArray, inputs: BoolArray | None = None) -> Float64Array:
    """Largest |weight| of each output, over some inputs. [o]"""
    by_input = np.abs(kernel).max(axis=tuple(range(2, kernel.ndim)), initial=0.0)
    if inputs is not None:
        by_input = by_input[:, inputs]
    return np.asarray(by_input.max(axis=1, initial=0.0), dtype=np.float64)


def _weighted(kernel: AnyArray, values: Float64Array, inputs: IntArray) -> Float64Array:
    """Sum of c_j W_j. [o, taps...]"""
    return np.asarray(np.tensordot(kernel[:, inputs], values[inputs], axes=(1, 0)))
