"""What cutting channels made of a network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from deploykit.graph.channels.cutting import Step
from deploykit.graph.channels.operands import take
from deploykit.graph.layer_work import positions_and_taps
from deploykit.graph.passes.groups import NO_PARTS, Parts
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import Network
from deploykit.spec.removal import NarrowedLayer, WidenedBlock


@dataclass(frozen=True)
class Cut:
    """A network with fewer channels.

    exact: with the numbers that changed in float64. pruned: all in the network's own element type.
    steps: rounds of analysis and cut. unarranged: nodes whose tensors had to stay whole. moved:
    whether tensors inside hold their channels in another order. narrowed: layers that compute the
    live channels of their tensor alone. added: blocks that got zero channels for speed.
    parts: the groups of convolutions that were split.
    held: tensors of the graph as the last step left it.
    """

    exact: Network
    pruned: Network
    steps: tuple[Step, ...]
    unarranged: tuple[str, ...]
    moved: bool
    narrowed: tuple[NarrowedLayer, ...] = ()
    added: tuple[WidenedBlock, ...] = ()
    parts: Parts = NO_PARTS
    held: frozenset[str] = frozenset()

    def rest_of(self, name: str, values: AnyArray) -> Float64Array:
        """Of a whole tensor what the cut one holds."""
        for step in self.steps:
            labels, arranged = step.found.structure.labels[name], step.arranged[name]
            if arranged.size < labels.size:
                values = take(values, labels, arranged)
        return values


@dataclass(frozen=True)
class SplitGain:
    """Of a convolution that was split. share: of its MACs that are left, over those at the widest
    group's widths everywhere. saved: MACs less. nodes: convolutions that it became.
    """

    share: float
    saved: float
    nodes: int


def split_gains(made: Cut) -> dict[str, SplitGain]:
    """By convolution that was split."""
    sizes: dict[str, list[tuple[int, int]]] = {}
    work: dict[str, float] = {}
    last = made.steps[-1]
    for site in last.found.structure.sites:
        part = made.parts.made.get(site.outputs[0])
        if part is None:
            continue
        widths = [last.arranged[name].size for name in (site.inputs[0], site.outputs[0])]
        if all(widths):
            sizes.setdefault(part.layer, []).append((widths[0], widths[1]))
            work[part.layer] = positions_and_taps(site.node)
    gains = {}
    for layer, held in sizes.items():
        left = sum(i * o for i, o in held)
        equal = len(held) * max(i for i, _ in held) * max(o for _, o in held)
        runs = 1 + sum(one != other for one, other in pairwise(held))
        gains[layer] = SplitGain(left / equal, (equal - left) * work[layer], runs)
    return gains
