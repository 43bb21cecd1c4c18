"""Grids that a network was trained on: planning keeps them instead of choosing its own.

    weight = scale * q        q in -2^(b-1) .. 2^(b-1) - 1            zero is 0
    tensor = scale * (q - z)  q in low .. high                        inside int8

A weight's integers are not stored beside it: they are what its float values are in steps of the
scale. So they follow the values through whatever cuts, orders or joins channels, and where the
values left the grid nothing claims that they are on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Int8Array
from deploykit.spec.quantized import Quantization, int_range

ON_GRID = 1e-4
"""Steps: float32 weights that are whole multiples of a scale lie closer to them. A product with a
scale and its quotient are each off by 2^-24 of up to 127 steps; a batch norm between adds two."""


GRID_BITS = (2, 3, 4, 5, 6, 8)
"""That the integers of a weight may take."""


@dataclass(frozen=True)
class WeightGrid:
    """scale: [1] for all of the weight, or [O] by output channel, positive; bits: of an integer."""

    bits: int
    scale: Float32Array

    @property
    def largest(self) -> int:
        """The largest magnitude of an integer. bits 8: 127; bits 2: 1."""
        return int_range(self.bits)[1]

    @property
    def smallest(self) -> int:
        """The smallest integer. bits 4: -8; bits 8: -128, once for each output (`may_overflow`)."""
        return int_range(self.bits)[0]

    def scaled(self, factor: Float64Array, outputs: int = 0) -> WeightGrid | None:
        """The grid of a weight times `factor`, which broadcasts to it; its axis `outputs` is [O].

        None where inputs have factors of their own, or where one is zero. A factor below zero
        turns integers round.
        """
        by_output = np.abs(factor.reshape(-1))
        along = factor.size == 1 or factor.shape[outputs] == factor.size
        if not along or not (by_output > 0).all():
            return None
        return replace(self, scale=(self.scale.astype(np.float64) * by_output).astype(np.float32))


@dataclass(frozen=True)
class GivenIntegers:
    """float32(values) * scale[o] is the weight to float32's own rounding. scale: [O]."""

    values: Int8Array
    scale: Float32Array


def integers_on(weight: AnyArray, grid: WeightGrid) -> GivenIntegers | None:
    """The integers of a weight [O, ...]; None where it left the grid.

    Channels may have gone or changed places since the grid was given: a row takes the scale of
    its place, and where that does not fit the first that does.
    """
    rows = np.asarray(weight, np.float64).reshape(weight.shape[0], -1)
    scale = np.broadcast_to(grid.scale, (len(rows),)).copy() if grid.scale.size == 1 else None
    if scale is None:
        scale = _fitting(rows, grid)
    if scale is None:
        return None
    steps = rows / scale.astype(np.float64)[:, None]
    values = np.rint(steps)
    if not _fits(steps, grid).all():
        return None
    return GivenIntegers(values.reshape(weight.shape).astype(np.int8), scale.astype(np.float32))


def _fits(steps: Float64Array, grid: WeightGrid) -> AnyArray:
    """[O], whether a row holds integers of the grid alone."""
    values = np.rint(steps)
    held = (np.abs(steps - values) < ON_GRID) & (values >= grid.smallest) & (values <= grid.largest)
    return np.asarray(held.all(axis=1) & ~may_overflow(values))


def may_overflow(rows: AnyArray) -> AnyArray:
    """[O], whether a row of integers holds -128 twice.

    ARM's kernels without dot products add two products in 16 bits; (-128)(-128) twice is 2^15,
    the first number that these do not hold.
    """
    return np.asarray((rows <= int_range(8)[0]).sum(axis=1) > 1)


def _fitting(rows: Float64Array, grid: WeightGrid) -> Float32Array | None:
    """[O]: of each row its scale; None where a row has none."""
    own = grid.scale if grid.scale.size == len(rows) else None
    chosen = np.full(len(rows), np.nan)
    for candidate in (own, *grid.scale):
        if candidate is None:
            continue
        wide = np.broadcast_to(np.asarray(candidate, np.float64), (len(rows),))
        found = np.isnan(chosen) & _fits(rows / wide[:, None], grid)
        chosen[found] = wide[found]
    return None if np.isnan(chosen).any() else chosen.astype(np.float32)


@dataclass(frozen=True)
class ActivationGrid:
    """quantization: of an int8 tensor. low, high: the integers that it holds, within int8.

    bits: that they take; a tensor of 4 bits lies in int8 all the same, between low and high.
    """

    quantization: Quantization
    low: int
    high: int
    bits: int

    @staticmethod
    def unsigned(scale: float, bits: int) -> ActivationGrid:
        """0 .. 2^bits - 1 steps, with zero at int8's low end: saturation is a Relu."""
        low, _ = int_range(8)
        return ActivationGrid(Quantization(scale, low), low, low + (1 << bits) - 1, bits)

    @staticmethod
    def symmetric(scale: float, bits: int) -> ActivationGrid:
        """-(2^(bits-1) - 1) .. 2^(bits-1) - 1 steps, zero at 0."""
        _, high = int_range(bits)
        return ActivationGrid(Quantization(scale, 0), -high, high, bits)

    @property
    def fills(self) -> bool:
        """Whether int8's own saturation holds its integers between low and high."""
        return (self.low, self.high) == int_range(8)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest real number on it."""
        scale, zero = self.quantization.scale, self.quantization.zero_point
        return scale * (self.low - zero), scale * (self.high - zero)

    def nearest(self, real: Float32Array) -> Float32Array:
        """The number of the grid that is nearest to each; half to even."""
        held = np.clip(self.quantization.quantize(real), self.low, self.high)
        return self.quantization.dequantize(held.astype(np.int8))


@dataclass(frozen=True)
class Refused:
    """A grid that a file states and no plan can hold. kind: weight or activation."""

    kind: str
    name: str
    bits: int
    why: str


@dataclass(frozen=True)
class Given:
    """weights: by initializer name. activations: by tensor name. refused: grids left behind.

    constants: by initializer name, of what sums and products read beside a tensor.

    In what folding returns, activations are by the name of the module that states them.
    """

    weights: Mapping[str, WeightGrid] = field(default_factory=dict)
    activations: Mapping[str, ActivationGrid] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    constants: Mapping[str, Quantization] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.weights or self.activations or self.refused)


NOTHING_GIVEN = Given()
