"""What channel removal did, and the proof that the function stayed the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a channel went."""

    UNREAD = "nobody reads it with a non-zero weight"
    ZERO = "it is zero everywhere"
    FOLDED = "it is constant, added to its readers' biases"
    COLLAPSED = "it is constant, merged into another constant channel"


@dataclass(frozen=True)
class RemovedChannel:
    """One channel that is gone. constant: its value where it had one; into: where it merged."""

    channel: int
    reason: Reason
    constant: float | None = None
    into: int | None = None


@dataclass(frozen=True)
class TensorRemoval:
    """Channels of one tensor before and after."""

    tensor: str
    operator: str
    channels_before: int
    channels_after: int
    removed: tuple[RemovedChannel, ...]


@dataclass(frozen=True)
class WidenedBlock:
    """Channels that lie in the same tensors, of which some dead ones stay because that is faster.

    needed: channels that have to stay; width: channels that do. gain: the predicted time of the
    layers around them without the dead ones over that with them; None where nothing was predicted.
    """

    tensors: tuple[str, ...]
    needed: int
    width: int
    gain: float | None


@dataclass(frozen=True)
class NarrowedLayer:
    """A layer that computes fewer channels than its tensor has; the others are copied in.

    channels: of the tensor; live: of which are not constant; width: that the layer computes. gain:
    predicted time of the layer as it was over that with the copy.
    """

    layer: str
    channels: int
    live: int
    width: int
    gain: float


@dataclass(frozen=True)
class Certificate:
    """Masked against pruned, evaluated in float64.

    relative: largest |difference| over the largest |output| of the masked network, by input kind.
    rounded: the largest of it where the pruned numbers are rounded to their stored element type.
    """

    samples: int
    max_absolute: float
    max_relative: float
    relative: Mapping[str, float]
    rounded: float


@dataclass(frozen=True)
class RemovalReport:
    """Everything that went, everything that could not, and the certificate.

    bytes: of all parameters, as they are stored.

    range_growth: by reader, how far merging constants stretched its weight range (1.0: not at all).
    borders: operators without a liveness rule, at which removal stopped. widened: where alignment
    kept dead channels. narrowed: layers that compute the live channels of their tensor alone.
    split: grouped convolutions that became several.
    """

    tensors: tuple[TensorRemoval, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    bytes_before: int
    bytes_after: int
    range_growth: Mapping[str, float]
    borders: tuple[str, ...]
    certificate: Certificate
    widened: tuple[WidenedBlock, ...] = ()
    narrowed: tuple[NarrowedLayer, ...] = ()
    split: tuple[str, ...] = ()
