"""The rival: structured pruning by the L1 norm of filters, as torch-pruning does it.

Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023; the norm is that
of Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017. Streams are pruned too.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from costs import cost
from model import ResNet18, Widths

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from threshold_search import last_accepted
from training_runs import RunError

SCOPES = ("uniform", "global")
_STEPS = 1000


def pruned(network: ResNet18, ratio: float, scope: str) -> ResNet18:
    """A copy with `ratio` of the channels gone: of each layer, or of all ("global").

    Raises RunError where torch-pruning is not installed.
    """
    if importlib.util.find_spec("torch_pruning") is None:
        raise RunError(
            "torch-pruning is not installed, which makes the rival: "
            "pip install --no-deps torch-pruning==1.6.1"
        )
    import torch_pruning  # type: ignore[import-untyped, import-not-found, unused-ignore]

    small = copy.deepcopy(network).eval()
    example = torch.zeros(1, 1, 28, 28)
    pruner = torch_pruning.pruner.BasePruner(
        small,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=scope == "global",
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        ignored_layers=[small.fc],
    )
    pruner.step()
    return small.requires_grad_(True)


def pruned_until(network: ResNet18, scope: str, small_enough: Callable[[Widths], bool]) -> ResNet18:
    """The largest copy that is small enough, ratios a thousandth apart."""
    ratios = [place / _STEPS for place in range(_STEPS - 1, -1, -1)]

    def accepted(ratio: float) -> bool:
        return small_enough(Widths.of(pruned(network, ratio, scope).state_dict()))

    return pruned(network, last_accepted(ratios, accepted), scope)


def pruned_to_weights(network: ResNet18, weights: int, scope: str) -> ResNet18:
    """The largest copy of at most so many weights."""
    return pruned_until(network, scope, lambda widths: cost(widths).weights <= weights)


def pruned_to_macs(network: ResNet18, macs: int, scope: str) -> ResNet18:
    """The largest copy of at most so many MACs."""
    return pruned_until(network, scope, lambda widths: cost(widths).macs <= macs)
