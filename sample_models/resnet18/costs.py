"""What channels and networks cost: weights and multiply-accumulates (MACs)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from model import BLOCKS, CLASSES, SIDE, ResNet18, Widths, gates
from torch import Tensor

_TAPS = 9


@dataclass(frozen=True)
class Cost:
    """Weights of convolutions and linear (no biases, no norms), and MACs for one image."""

    weights: int
    macs: int


def _positions(stage: int) -> int:
    return int((-(-SIDE // 2**stage)) ** 2)


def cost(widths: Widths) -> Cost:
    """Of the whole network."""
    streams = widths.streams
    weights = streams[0] * _TAPS
    macs = weights * _positions(0)
    before = streams[0]
    for place in range(BLOCKS):
        stage = place // 2
        block = channel_cost(widths, place).weights * widths.inner[place]
        if stage and not place % 2:
            block += before * streams[stage]
        weights += block
        macs += block * _positions(stage)
        before = streams[stage]
    return Cost(weights + before * CLASSES, macs + before * CLASSES)


def channel_cost(widths: Widths, place: int) -> Cost:
    """What one channel inside block `place` costs: a filter of conv1, and its readers in conv2."""
    stage = place // 2
    after = widths.streams[stage]
    before = after if place % 2 or not stage else widths.streams[stage - 1]
    weights = _TAPS * (before + after)
    return Cost(weights, weights * _positions(stage))


def channel_shares(widths: Widths, macs_share: float) -> tuple[float, ...]:
    """Share of the cost of all that gates can free, by channel of each block.

    macs_share: how much MACs count, weights count the rest. Over all channels they add up to 1.
    """
    costs = [channel_cost(widths, place) for place in range(BLOCKS)]
    all_weights = sum(c.weights * n for c, n in zip(costs, widths.inner, strict=True))
    all_macs = sum(c.macs * n for c, n in zip(costs, widths.inner, strict=True))
    return tuple(
        macs_share * one.macs / all_macs + (1 - macs_share) * one.weights / all_weights
        for one in costs
    )


def weighted_kl(network: ResNet18, shares: tuple[float, ...]) -> Tensor:
    """Nats of the gates' divergences, each channel's times its share of the cost, a scalar."""
    parts = zip(gates(network), shares, strict=True)
    return torch.stack([share * gate.kl_divergence().sum() for gate, share in parts]).sum()


def kept_inner(network: ResNet18) -> tuple[int, ...]:
    """Open gates of each block."""
    return tuple(int(gate.is_open().sum()) for gate in gates(network))
