"""Which weights a trained network can do without: chosen by noise, or by the library itself.

A channel's signal-to-noise ratio is sqrt(sum mu^2 / sum s^2) over its weights, what `deploykit
export --prune-rule snr` looks at; a channel stays if its ratio is at least its layer's threshold.
Source: Graves 2011; Blundell et al. 2015, section 5.1, by channel instead of by weight.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from libraries import Library
from model import HIDDEN, Network
from torch import Tensor

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from threshold_search import last_accepted

# By the weights that a channel frees, its own and those that read it: 432, 378 and 313.
_SEARCH_ORDER = ("conv2", "conv3", "conv1")
_DIGITS = 3
_MARGIN = 1e-4


def ratios(library: Library, trained: Network) -> dict[str, Tensor]:
    """Each hidden layer's channels' ratios [C], in double precision."""
    found = {}
    with torch.no_grad():
        for name in HIDDEN:
            layer = trained.get_submodule(name)
            signal = library.weight(layer).double().square().flatten(1).sum(dim=1)
            noise = library.deviation(layer).double().square().flatten(1).sum(dim=1)
            found[name] = (signal / noise).sqrt()
    return found


def closed(plain: Network, noise: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> Network:
    """A copy whose channels below their layer's threshold are zero."""
    pruned = copy.deepcopy(plain)
    with torch.no_grad():
        for name, threshold in thresholds.items():
            pruned.get_parameter(f"{name}.weight")[noise[name] < threshold] = 0.0
    return pruned


def choose_thresholds(
    plain: Network,
    noise: Mapping[str, Tensor],
    accuracy: Callable[[Network], float],
    tolerance: float,
) -> dict[str, float]:
    """Raise one layer's threshold after the other while accuracy, a fraction, allows it.

    The floor falls from the unpruned accuracy by an equal share of `tolerance` per layer, so that
    the last layer has pruned at most `tolerance` away. `accuracy` must not see test images.
    """
    unpruned = accuracy(plain)
    chosen: dict[str, float] = {}
    for position, name in enumerate(_SEARCH_ORDER, start=1):
        floor = unpruned - tolerance * position / len(_SEARCH_ORDER)

        def accepted(candidate: float, name: str = name, floor: float = floor) -> bool:
            return accuracy(closed(plain, noise, chosen | {name: candidate})) >= floor

        chosen[name] = last_accepted(_candidates(noise[name]), accepted)
    return {name: chosen[name] for name in HIDDEN}


def _candidates(scores: Tensor) -> list[float]:
    """0, which closes nothing, up to a threshold that leaves a single channel open.

    Each lies midway between neighbouring ratios, so that rounding closes or opens no channel.
    """
    ordered = scores.sort().values.tolist()
    middles = [(low, round((low + high) / 2, _DIGITS), high) for low, high in pairwise(ordered)]
    return [
        0.0,
        *(middle for low, middle, high in middles if low + _MARGIN < middle < high - _MARGIN),
    ]
