"""Which of a network's parameters lie in which group of an optimizer, told by their sizes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from deploykit.spec.posterior import FlatGroup


@dataclass(frozen=True)
class Grouped:
    """parameters: in the order of the vector. prior_variance: by name, of those that have one."""

    parameters: dict[str, nn.Parameter]
    prior_variance: dict[str, float]


def in_groups(
    parameters: Mapping[str, nn.Parameter], groups: Sequence[FlatGroup]
) -> Grouped | None:
    """The parameters group by group, each in the order of the network; None where that is open.

    Groups of k tensors are taken by falling mean size. Of the tensors left, the k largest have the
    largest sum that k of them can have, and no other k have it where the next one is smaller. So
    a group of that sum holds those and no others: the weights that decay, say, beside biases and
    norms, as long as every weight is larger than every bias.
    """
    if sum(group.tensors for group in groups) != len(parameters):
        return None
    left = sorted(parameters, key=lambda name: parameters[name].numel(), reverse=True)
    members: dict[int, set[str]] = {}
    for place in sorted(range(len(groups)), key=lambda place: -_mean_size(groups[place])):
        group = groups[place]
        taken, left = left[: group.tensors], left[group.tensors :]
        if sum(parameters[name].numel() for name in taken) != group.numbers:
            return None
        if taken and left and parameters[taken[-1]].numel() == parameters[left[0]].numel():
            return None
        members[place] = set(taken)
    ordered: dict[str, nn.Parameter] = {}
    priors: dict[str, float] = {}
    for place, group in enumerate(groups):
        own = {name: value for name, value in parameters.items() if name in members[place]}
        ordered |= own
        if group.prior_variance is not None:
            priors |= dict.fromkeys(own, group.prior_variance)
    return Grouped(ordered, priors)


def _mean_size(group: FlatGroup) -> float:
    return group.numbers / max(1, group.tensors)
