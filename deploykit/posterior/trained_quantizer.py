"""One quantizer of Bayesian Bits: gates that decide the bits of a tensor, and its range.

    s_2 = 2 x_max / 3 where the tensor is signed, else x_max / 3      or learned itself
    s_4 = s_2 / 5    s_8 = s_4 / 17    s_16 = s_8 / 257    s_32 = s_16 / 65537
    x_b = s_b round((x - x_2 - ... ) / s_b)                           x clipped to its range
    Q   = x_2 + z_4 (x_4 + z_8 (x_8 + z_16 (x_16 + z_32 x_32)))

A gate is open at evaluation where sigmoid(2/3 log(1/11) - gamma) < 0.34. Rounded residuals add up
to one rounding at the finest scale in use, so the integers of b bits are Q / s_b: symmetric, up to
2^(b-1) - 1, of a signed tensor, 0 .. 2^b - 1 of one that is not. All of it is float32, so that the
integers are those of the published code, ties included.

With a learned scale the file does not say whether a tensor is signed, and the published code clips
a signed one at 3 s_2, twice the range of s_2: its integers may take one bit more than the gates
say.
Source: van Baalen et al. 2020, equations 4 to 6; Qualcomm-AI-research/BayesianBits fb04b6f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior import hard_concrete
from deploykit.spec.arrays import AnyArray, BoolArray, Float32Array, Float64Array, Tensors
from deploykit.spec.given import ActivationGrid, WeightGrid
from deploykit.spec.posterior import ActivationRange
from deploykit.spec.quantized import int_range

FINER = (4, 8, 16, 32)
GATES = frozenset(f"gamma_{bits}" for bits in FINER)
RANGE, SCALE = frozenset({"x_min", "x_max"}), frozenset({"s_2"})
THRESHOLD = 0.34
CLOSED_AT = 2 / 3 * math.log(1 / 11) - math.log(THRESHOLD / (1 - THRESHOLD))
"""-0.9353: gates at and below are closed at evaluation."""
NEVER_DRAWN = -2.0
"""The published code does not draw a gate at or below, nor those of more bits."""
INSIDE = np.float32(1 - 1e-7)
"""What a range is multiplied by before it clips, so that its end does not round away from zero."""
SMALLEST = np.float32(2.0**-60)
"""Of a range: its finest scale is 2^-31 of it, and has to be a normal float32."""
IN_INT8 = (2, 4, 8)
"""Bits that an int8 tensor holds."""


def is_open(gamma: AnyArray) -> BoolArray:
    """Whether gates are open at evaluation."""
    return np.asarray(gamma.astype(np.float64) > CLOSED_AT, dtype=np.bool_)


@dataclass(frozen=True)
class TrainedQuantizer:
    """name: for sentences. gammas: of 4, 8, 16 and 32 bits. coarsest: s_2.

    reach: what values are clipped to, in magnitude. signed: None where the file does not tell.
    """

    name: str
    gammas: tuple[float, ...]
    coarsest: np.float32
    reach: np.float32
    signed: bool | None

    @staticmethod
    def of(name: str, tensors: Tensors) -> TrainedQuantizer:
        """tensors: gamma_4 ... gamma_32 and either x_min and x_max or s_2, one number each.

        Raises CheckpointError where one is not, or where the range is empty.
        """
        wrong = sorted(key for key in GATES | RANGE | SCALE if tensors.get(key, _ONE).size != 1)
        if wrong:
            raise CheckpointError(
                f"'{name}.{wrong[0]}' has shape {tensors[wrong[0]].shape}, and a quantizer of "
                "Bayesian Bits has one number there; a quantizer per channel cannot be read"
            )
        held = {
            key: np.float32(value.reshape(())) for key, value in tensors.items() if value.size == 1
        }
        gammas = tuple(float(held[f"gamma_{bits}"]) for bits in FINER)
        end = held["x_max" if "x_max" in held else "s_2"]
        if not end >= SMALLEST:
            raise CheckpointError(
                f"'{name}': its range ends at {end:g}, so it holds no number but zero; the "
                "training diverged, take an earlier checkpoint"
            )
        if "s_2" in held:
            reach = np.float32(INSIDE * np.float32(np.float32(3) * end))
            return TrainedQuantizer(name, gammas, end, reach, None)
        signed = bool(held["x_min"] < 0)
        width = np.float32(end + end) if signed else end
        return TrainedQuantizer(name, gammas, np.float32(width / np.float32(3)), end, signed)

    @property
    def bits(self) -> int:
        """2, 4, 8, 16 or 32: a gate counts where all gates of fewer bits are open too."""
        opened = is_open(np.array(self.gammas))
        return 2 << int(np.cumprod(opened).sum())

    @property
    def scale(self) -> np.float32:
        """The step of the bits in use."""
        return self._scales()[FINER.index(self.bits) + 1 if self.bits > 2 else 0]

    def for_values(self, values: Float32Array) -> TrainedQuantizer:
        """The same where the file does not tell the sign: it was taken from the first values."""
        return self if self.signed is not None else replace(self, signed=bool(values.min() < 0))

    def quantized(self, values: Float32Array) -> Float32Array:
        """Q at evaluation, in float32."""
        opened = np.cumprod(is_open(np.array(self.gammas)))
        return self._nested(values, [np.float32(one) for one in opened])

    def codes(self, values: Float32Array) -> Float64Array:
        """Q / scale: whole numbers up to float32's rounding, rounded."""
        return np.rint(self.quantized(values).astype(np.float64) / np.float64(self.scale))

    def drawn(self, values: Float32Array, generator: np.random.Generator) -> Float32Array:
        """Q with gates drawn as in training, each between 0 and 1."""
        gammas = np.array(self.gammas)
        gates = hard_concrete.draw(gammas, generator) * np.cumprod(gammas > NEVER_DRAWN)
        return self._nested(values, [np.float32(one) for one in gates])

    def weight_grid(self, codes: Float64Array) -> WeightGrid | None:
        """The grid of these integers; None where int8 does not hold them.

        Its bits are those of the gates, or 8 where the integers take more than the gates say.
        """
        largest = float(np.abs(codes).max(initial=0.0))
        for bits in IN_INT8:
            if bits >= self.bits and largest <= int_range(bits)[1]:
                return WeightGrid(bits, np.array([self.scale], np.float32))
        return None

    def activation_range(self) -> ActivationRange:
        """For tensors of the stated sign; where none is stated, unsigned, and what it is if not."""
        if self.signed is None:
            told = [replace(self, signed=signed)._range() for signed in (False, True)]
            return replace(told[0], if_signed=told[1])
        return self._range()

    def _range(self) -> ActivationRange:
        # With a learned scale a signed tensor reaches 3 s_2, which is one bit more than symmetric.
        doubled = self.signed and float(self.reach) > 2 * float(self.coarsest)
        made: Callable[[float, int], ActivationGrid] = (
            ActivationGrid.symmetric if self.signed else ActivationGrid.unsigned
        )
        bits = self.bits + 1 if doubled else self.bits
        grid = made(float(self.scale), bits) if bits <= 8 and self.bits in IN_INT8 else None
        low, high = (-float(self.reach) if self.signed else 0.0), float(self.reach)
        return ActivationRange(self.bits, *(grid.ends if grid else (low, high)), grid)

    def _scales(self) -> list[np.float32]:
        scales = [self.coarsest]
        for power in (2, 4, 8, 16):
            scales.append(np.float32(scales[-1] / np.float32((1 << power) + 1)))
        return scales

    def _clipped(self, values: Float32Array) -> Float32Array:
        """In the published order of float32 operations, each of which rounds."""
        high = np.float32(INSIDE * self.reach)
        low = np.float32(-high) if self.signed else np.float32(0)
        above = np.maximum(values - low, np.float32(0))
        return np.asarray(high - np.maximum(np.float32(high - low) - above, np.float32(0)))

    def _nested(self, values: Float32Array, gates: list[np.float32]) -> Float32Array:
        left = self._clipped(values.astype(np.float32))
        scales = self._scales()
        total = np.asarray(scales[0] * np.rint(left / scales[0]))
        left, finer = left - total, []
        for scale, gate in zip(scales[1:], gates, strict=True):
            if gate == 0:
                break
            finer.append((gate, np.asarray(scale * np.rint(left / scale))))
            left = left - finer[-1][1]
        added = np.zeros_like(total)
        for gate, part in reversed(finer):
            added = gate * (part + added)
        return np.asarray(total + added, dtype=np.float32)


_ONE = np.ones(1, np.float32)
