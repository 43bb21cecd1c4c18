"""The choices that a user makes about folding; free of torch, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class PruneRule(Enum):
    """What decides which gates or output channels close."""

    FAMILY = "family"
    SNR = "snr"
    SAVAGE_DICKEY = "savage-dickey"
    NONE = "none"


class BatchNormMode(Enum):
    """What happens to running statistics that were collected with noisy weights."""

    KEEP = "keep"
    REESTIMATE = "reestimate"
    ANALYTIC = "analytic"


class Numerics(Enum):
    """In which arithmetic a posterior is folded whose published code errs in float32.

    REFERENCE reproduces the errors, and with them the network that the author evaluated.
    """

    EXACT = "exact"
    REFERENCE = "reference"


Threshold = float | Mapping[str, float] | None
"""One threshold for every layer, one per layer by name, or the rule's own default."""


@dataclass(frozen=True)
class PruneSpec:
    """A pruning rule and its threshold."""

    rule: PruneRule = PruneRule.FAMILY
    threshold: Threshold = None
