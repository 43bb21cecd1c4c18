"""Bits of weights by layer, chosen under a limit: what was asked, what was found, what it costs.

    minimise   sum of S[l](b[l])     subject to   sum of c[l](b[l]) <= budget

S[l](b): what layer l at b bits costs the network's answer; c[l](b): what it takes of the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

ALLOCATED_BITS = (2, 3, 4, 5, 6, 8)
"""Widths that a layer may get."""


class Measure(Enum):
    """What says how much a layer's rounding matters.

    POSTERIOR: S = 1/2 sum of (w - Q(w))^2 / s^2, the nats by which the posterior moves.
    MOMENTS: the change of the network's output on calibration data, see quantize.sensitivity.
    """

    POSTERIOR = "posterior"
    MOMENTS = "moments"


class SensitivityChoice(Enum):
    """Which measure allocation is to use; AUTO: the posterior where it is informative."""

    AUTO = "auto"
    POSTERIOR = "posterior"
    MOMENTS = "moments"


@dataclass(frozen=True)
class MaxBytes:
    """No written model file may be larger."""

    size_bytes: int

    def __str__(self) -> str:
        return f"--max-bytes {self.size_bytes}"


@dataclass(frozen=True)
class TargetBits:
    """Mean bits of a weight's value, over all weights."""

    bits: float

    def __str__(self) -> str:
        return f"--target-bits {self.bits:g}"


@dataclass(frozen=True)
class MaxAccuracyDrop:
    """Points of top-1 under the float network's, on the evaluation data."""

    points: float

    def __str__(self) -> str:
        return f"--max-accuracy-drop {self.points:g}"


BitsTarget = MaxBytes | TargetBits | MaxAccuracyDrop


@dataclass(frozen=True)
class AutoBits:
    """That bits are to be allocated, and how."""

    target: BitsTarget
    sensitivity: SensitivityChoice = SensitivityChoice.AUTO


@dataclass(frozen=True)
class LayerChoices:
    """One weight: what it takes and what it costs the answer, by bits.

    layers: that share it. weights: how many numbers. file_bytes: of its integers, by bits, in the
    file that stores them widest. fixed: why there is no choice; empty where there is.
    """

    layers: tuple[str, ...]
    weights: int
    file_bytes: Mapping[int, int]
    sensitivity: Mapping[int, float]
    fixed: str = ""

    @property
    def name(self) -> str:
        """Of the first layer."""
        return self.layers[0]


@dataclass(frozen=True)
class DrawTest:
    """Whether the network answers alike with weights drawn from its posterior.

    judged_by: "accuracy" on labels, "answers" that stay, or "output" whose error stays small.
    mean: of the mean network. by_scale: of draws mean + scale * s * eps, their mean by scale.
    scale: the largest at which it holds, None where it does at none.
    """

    judged_by: str
    samples: int
    draws: int
    mean: float
    by_scale: Mapping[float, float]
    scale: float | None


@dataclass(frozen=True)
class PosteriorEvidence:
    """Whether the posterior may guide the bits. why: it may not; empty where it may.

    lacking: layers that have no variance. varied: third quartile of s over its first, of all
    weights as they were trained. noise: rounding errors over scale * s, root mean square of a
    layer's weights, the median of layers, by bits. None where an earlier test decided.
    """

    why: str
    lacking: tuple[str, ...] = ()
    varied: float | None = None
    test: DrawTest | None = None
    noise: Mapping[int, float] | None = None

    @property
    def informative(self) -> bool:
        """Whether it may."""
        return not self.why


@dataclass(frozen=True)
class Tried:
    """One allocation that was exported while searching. limit: of bytes of weights.

    largest_file: bytes; accuracy: None where it was not measured.
    """

    limit: int
    largest_file: int
    accuracy: float | None = None


@dataclass(frozen=True)
class Allocation:
    """The bits of every layer, and why. evidence: None where the posterior was not asked.

    reference: accuracy of the float network, where accuracy was the limit.
    """

    auto: AutoBits
    measure: Measure
    choices: tuple[LayerChoices, ...]
    bits: Mapping[str, int]
    evidence: PosteriorEvidence | None = None
    tried: tuple[Tried, ...] = ()
    reference: float | None = None

    @property
    def mean_bits(self) -> float:
        """Of a weight's value."""
        total = sum(one.weights for one in self.choices)
        return sum(one.weights * self.bits[one.name] for one in self.choices) / max(1, total)

    @property
    def sensitivity(self) -> float:
        """Sum over all layers."""
        return sum(one.sensitivity.get(self.bits[one.name], 0.0) for one in self.choices)

    @property
    def weight_bytes(self) -> int:
        """Of integers, in the file that stores them widest."""
        return sum(one.file_bytes[self.bits[one.name]] for one in self.choices)
