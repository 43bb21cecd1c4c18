"""Channels that float32 rounding hides, how well it does, and what zeroing them changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Hiding(Enum):
    """Why a channel makes no difference in float32."""

    UNREAD = "what every reader adds of it is less than the reader's sums round"
    CONSTANT = "it varies less than its readers' sums round"


class Outcome(Enum):
    """What became of the search."""

    NOTHING = "no channel is hidden by rounding"
    ZEROED = "the weights of hidden channels are zero"
    GIVEN_BACK = "zeroing changed more than it may, and the network is as it was"


@dataclass(frozen=True)
class ReaderBound:
    """One layer that reads a channel.

    largest_weight: of its kernels for the channel, over the largest of the layer.
    bound: of the channel's effect on its sums, over their rounding, at the worst output.
    """

    reader: str
    largest_weight: float
    bound: float


@dataclass(frozen=True)
class NegligibleChannel:
    """One output channel of one layer.

    largest_weight: of the channel's own kernels, over the largest of the layer. constant: the
    bias that is left of a CONSTANT channel. readers: every layer that sums over the channel,
    through activations, pools, depthwise convolutions and residual sums.
    """

    tensor: str
    layer: str
    channel: int
    hiding: Hiding
    largest_weight: float
    constant: float | None
    readers: tuple[ReaderBound, ...]


@dataclass(frozen=True)
class Negligible:
    """What was found, and what it changed; all changes are relative to the largest output.

    roundoff: unit roundoff u of float32; safety: factor on measured magnitudes; samples: how many
    inputs were measured on.
    bound: of the change by zeroing, for inputs within the ranges; rounding_bound: of one rounding
    of u per sum, carried through the network in the same way. Both take the worst signs at every
    layer, so on a deep network their ratio says more than either.
    measured: the true change of the outputs, in float64. float32_error: of the given network in
    float32 against float64. allowed: the measured change above which the network is given back.
    """

    outcome: Outcome
    channels: tuple[NegligibleChannel, ...]
    samples: int
    roundoff: float
    safety: float
    bound: float
    rounding_bound: float
    measured: float
    float32_error: float
    allowed: float
