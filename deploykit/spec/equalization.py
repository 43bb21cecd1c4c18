"""Channels scaled against their readers' columns before rounding, and what was done of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Equalization(Enum):
    """Whether channels are scaled so that the layers on both sides of a tensor round well."""

    NONE = "none"
    CROSS_LAYER = "cross-layer"


@dataclass(frozen=True)
class EqualizedChain:
    """Tensors whose channels share their factors, and the layers that make and read them.

    makers, readers: names of layers with weights. channels: that may be scaled apart; moved: that
    were, by a power of two from 2**lowest to 2**highest. noise: predicted over what it was, as a
    power ratio; 1 where nothing moved. pinned: why channels have to stay as they are, most first.
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    moved: int
    lowest: int
    highest: int
    noise: float
    pinned: tuple[str, ...]


@dataclass(frozen=True)
class EqualizationReport:
    """samples: how many inputs activations were measured on."""

    samples: int
    chains: tuple[EqualizedChain, ...]
