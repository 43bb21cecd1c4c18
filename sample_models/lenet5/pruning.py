"""Which weights of the Bayesian LeNet-5 can be removed, and at which thresholds.

A gate is kept if its log_alpha < threshold, with one threshold per layer.
"""

import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from group_normal_jeffreys import GroupNormalJeffreys
from model import LeNet5
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from threshold_search import last_accepted

DENSE_WEIGHTS = 431_080
LAYERS = ("conv1", "conv2", "fc1", "fc2")

# fc2's gates decide fc1's outputs and conv2's its inputs, where 93 % of the weights are; a gate
# of fc1 frees weights only together with the 15 others of its conv2 channel, so it comes last.
_SEARCH_ORDER = ("fc2", "conv2", "conv1", "fc1")
_DIGITS = 3
_MARGIN = 1e-4
_OPEN = 0.0  # the least threshold for a layer that loses no gate

_KERNEL = 5 * 5
_POSITIONS = 4 * 4  # fc1 inputs per conv2 channel
_CLASSES = 10

Thresholds = Mapping[str, float]


def gates(model: LeNet5) -> dict[str, GroupNormalJeffreys]:
    """The four Bayesian layers by name."""
    layers = {name: getattr(model, name) for name in LAYERS}
    if not all(isinstance(layer, GroupNormalJeffreys) for layer in layers.values()):
        raise TypeError("only a model from bayesian_lenet5() has gates to prune")
    return layers


def kept_gates(model: LeNet5, thresholds: Thresholds) -> dict[str, Tensor]:
    """True where log_alpha < threshold: conv1 [20], conv2 [50], fc1 [800], fc2 [500]."""
    return {
        name: layer.log_alpha().detach() < thresholds[name] for name, layer in gates(model).items()
    }


def prune(model: LeNet5, thresholds: Thresholds) -> LeNet5:
    """Copy the model with z_mu = 0 at every gate at or above its threshold."""
    pruned = copy.deepcopy(model)
    kept = kept_gates(model, thresholds)
    with torch.no_grad():
        for name, layer in gates(pruned).items():
            layer.z_mu.mul_(kept[name])
    return pruned


@dataclass(frozen=True)
class Widths:
    """Output channels or features that stay in each hidden layer."""

    conv1: int
    conv2: int
    fc1: int

    @property
    def weights(self) -> int:
        """Weights and biases of a LeNet-5 this wide."""
        return (
            (_KERNEL + 1) * self.conv1
            + (_KERNEL * self.conv1 + 1) * self.conv2
            + (_POSITIONS * self.conv2 + 1) * self.fc1
            + (self.fc1 + 1) * _CLASSES
        )

    @property
    def percent_removed(self) -> float:
        """Weights and biases gone, in percent of the dense 431,080."""
        return 100.0 * (1.0 - self.weights / DENSE_WEIGHTS)


def remaining_widths(kept: Mapping[str, Tensor]) -> Widths:
    """Count what physically stays: what is not gated to zero and is read by what stays.

    conv1 channel  its gate is kept, and some conv2 channel stays
    conv2 channel  its gate is kept, one of its 16 fc1 input gates is kept, some fc1 output stays
    fc1 output     its fc2 input gate is kept
    A closed fc1 input gate of a conv2 channel that stays is a zero column, and stays too.
    """
    fc1 = int(kept["fc2"].sum())
    read_by_fc1 = kept["fc1"].view(-1, _POSITIONS).any(dim=1)
    conv2 = int((kept["conv2"] & read_by_fc1).sum()) if fc1 else 0
    conv1 = int(kept["conv1"].sum()) if conv2 else 0
    return Widths(conv1, conv2, fc1)


def _candidates(log_alpha: Tensor) -> list[float]:
    """Thresholds from one that closes no gate down to one that leaves a single gate open.

    Each lies midway between neighbouring values, so that rounding flips no gate; values too
    close to part are kept or closed together.
    """
    ordered = log_alpha.double().sort(descending=True).values.tolist()
    middles = [(high, round((high + low) / 2, _DIGITS), low) for high, low in pairwise(ordered)]
    open_to_all = max(_OPEN, round(ordered[0] + 1.0, _DIGITS))
    return [
        open_to_all,
        *(middle for high, middle, low in middles if low + _MARGIN < middle < high - _MARGIN),
    ]


def choose_thresholds(
    model: LeNet5, accuracy: Callable[[LeNet5], float], tolerance: float
) -> dict[str, float]:
    """Lower one layer's threshold after the other while accuracy, a fraction, allows it.

    The floor falls from the unpruned accuracy by an equal share of `tolerance` per layer, so
    that the last layer has pruned at most `tolerance` away. `accuracy` must not see test images.
    """
    unpruned = accuracy(model)
    chosen = dict.fromkeys(LAYERS, float("inf"))
    for position, name in enumerate(_SEARCH_ORDER, start=1):
        floor = unpruned - tolerance * position / len(_SEARCH_ORDER)

        def accepted(candidate: float, name: str = name, floor: float = floor) -> bool:
            return accuracy(prune(model, chosen | {name: candidate})) >= floor

        candidates = _candidates(gates(model)[name].log_alpha().detach())
        chosen[name] = last_accepted(candidates, accepted)
    return chosen
