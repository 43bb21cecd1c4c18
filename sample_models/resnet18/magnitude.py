"""The rival: structured pruning by magnitude, as torch-pruning does it.

Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023. A channel counts
by the mean L1 norm of all that goes with it: its filter, its norm's scale and what reads it (Li et
al., "Pruning Filters for Efficient ConvNets", ICLR 2017, take the filter's alone). In the scopes
"uniform" and "global" streams are pruned too.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from costs import cost
from model import BLOCKS, ResNet18, Widths
from torch import nn

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from threshold_search import last_accepted
from training_runs import RunError

UNIFORM, INNER, GLOBAL = SCOPES = ("uniform", "inner", "global")
_STEPS, _STRIDE = 1000, 50
"""Ratios are thousandths; searched upwards in strides, as near 1 torch-pruning leaves layers whole
that it would have to remove.
"""


def need_torch_pruning() -> None:
    """Raises RunError where it is not installed."""
    if importlib.util.find_spec("torch_pruning") is None:
        raise RunError(
            "torch-pruning is not installed, which makes the rival: "
            "pip install --no-deps torch-pruning==1.6.1"
        )


def _of_streams(network: ResNet18) -> list[nn.Module]:
    """Layers that write to streams."""
    inside = {f"blocks.{place}.conv1" for place in range(BLOCKS)}
    layers = network.named_modules()
    return [one for name, one in layers if isinstance(one, nn.Conv2d) and name not in inside]


def pruned(network: ResNet18, ratio: float, scope: str) -> ResNet18:
    """A copy with `ratio` of the channels gone: of each layer (UNIFORM), or of all (GLOBAL), or of
    all inside blocks, which is what gates can remove (INNER).

    Raises RunError where torch-pruning is not installed.
    """
    need_torch_pruning()
    import torch_pruning  # type: ignore[import-untyped, import-not-found, unused-ignore]

    small = copy.deepcopy(network).eval()
    example = torch.zeros(1, 1, 28, 28)
    pruner = torch_pruning.pruner.BasePruner(
        small,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=scope != UNIFORM,
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        ignored_layers=[small.fc, *(_of_streams(small) if scope == INNER else [])],
    )
    pruner.step()
    return small.requires_grad_(True)


def pruned_until(network: ResNet18, scope: str, small_enough: Callable[[Widths], bool]) -> ResNet18:
    """The largest copy that is small enough, ratios a thousandth apart.

    Raises RunError where none is.
    """

    def accepted(ratio: float) -> bool:
        return small_enough(Widths.of(pruned(network, ratio, scope).state_dict()))

    strides = range(0, _STEPS, _STRIDE)
    enough = next((place for place in strides if accepted(place / _STEPS)), None)
    if enough is None:
        raise RunError(f"magnitude, {scope}: no pruning leaves as little as that: ask for more.")
    ratios = [place / _STEPS for place in range(enough, max(enough - _STRIDE, -1), -1)]
    return pruned(network, last_accepted(ratios, accepted), scope)


def pruned_to_weights(network: ResNet18, weights: int, scope: str) -> ResNet18:
    """The largest copy of at most so many weights."""
    return pruned_until(network, scope, lambda widths: cost(widths).weights <= weights)


def pruned_to_macs(network: ResNet18, macs: int, scope: str) -> ResNet18:
    """The largest copy of at most so many MACs."""
    return pruned_until(network, scope, lambda widths: cost(widths).macs <= macs)
