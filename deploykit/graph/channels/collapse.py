"""Constant channels of one tensor that become few: their readers' kernels add up.

Exact under zero padding too, where adding the constant to the next bias is not:

    sum_j c_j W_j * 1  =  (sum_j (c_j / C) W_j) * C      with 1 the map of ones, C the survivor's

Where m survive, each takes an equal share of the sum, its own kernel included.

One survivor is enough. Its kernel may come out larger than the reader's other weights, which would
cost low-bit accuracy; then the survivor is given a larger constant C, where the operators between
its layer and its readers let it and the tensor holds such numbers anyway, and else several
survivors share the kernel. Where that is no help the constants stay apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.rule import Constants, Merge, Site
from deploykit.graph.channels.wishes import Reader, Wish, survivors_of, to_restate
from deploykit.graph.edit import label
from deploykit.spec.arrays import BoolArray

WORTH = 0.125
"""The smallest survivor, in the largest constant of its tensor."""


@dataclass(frozen=True)
class Limits:
    """growth: how far a merge may stretch the weight range of an output channel.

    ranges: by tensor, the largest magnitude that it holds, where that is known: no constant is
    restated above it. on_grid: weights whose kernels do not add up, as sums would leave their grid.
    """

    growth: float = 1.0
    ranges: Mapping[str, float] = field(default_factory=dict)
    on_grid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Collapse:
    """merges: by tensor. overrides: by layer output, the constants that it states from now on.

    range_growth: by reader.
    """

    merges: Mapping[str, Merge]
    overrides: Mapping[str, Constants]
    range_growth: Mapping[str, float]


def collapse(
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    needed: BoolArray,
    rigid: BoolArray,
    limits: Limits,
    forward: Callable[[Mapping[str, Constants]], Mapping[str, Constants]],
) -> Collapse:
    """Decide every tensor's merge; survivors, and constants that stay apart, become needed.

    rigid: by atom, whether somebody outside sees its value. forward: the constants of all tensors
    where some layers state other ones.
    """
    uses_by_tensor = _padded_readers(sites, labels, constants, needed)
    apart = {site.inputs[0] for site in sites if _weight_name(site) in limits.on_grid}
    wishes = [
        _wish(tensor, uses, labels, constants, needed, limits, tensor in apart)
        for tensor, uses in uses_by_tensor.items()
    ]
    settled = _agreed([wish for wish in wishes if wish is not None], labels, limits)
    overrides, after = _restated(settled, sites, labels, constants, rigid, forward)
    merges: dict[str, Merge] = {}
    growth: dict[str, float] = {}
    for wish in settled:
        atoms = labels[wish.tensor].reshape(-1)
        restated = after[wish.tensor].reshape(-1)
        survivors, stretch = survivors_of(wish, restated)
        if survivors is None:
            needed[atoms[wish.gone]] = True
            needed[atoms[wish.candidates]] = True
            continue
        needed[atoms[survivors]] = True
        if len(np.setdiff1d(wish.gone, survivors)):
            merges[wish.tensor] = Merge(tuple(int(s) for s in survivors))
            growth.update(stretch)
    return Collapse(merges, overrides, growth)


def _agreed(wishes: Sequence[Wish], labels: Mapping[str, Labels], limits: Limits) -> list[Wish]:
    """Where ranges may grow, tensors that share channels choose the same survivor.

    The tensors of a residual stream would else keep one channel each. The channel that most of them
    could keep is taken first, then what most of the others could: a constant at least WORTH of the
    tensor's largest, so that no kernel explodes.
    """
    if np.isfinite(limits.growth):
        return list(wishes)
    atoms = [labels[wish.tensor].reshape(-1) for wish in wishes]
    worthy = []
    for wish, own in zip(wishes, atoms, strict=True):
        sizes = np.abs(wish.values[wish.candidates])
        chosen = wish.candidates[sizes >= WORTH * sizes.max()]
        worthy.append({int(own[channel]): int(channel) for channel in chosen})
    agreed: dict[int, Wish] = {}
    while len(agreed) < len(wishes):
        open_ = [number for number in range(len(wishes)) if number not in agreed]
        votes = Counter(atom for number in open_ for atom in worthy[number])
        most = max(votes.values())
        winner = min(atom for atom, count in votes.items() if count == most)
        for number in open_:
            if winner in worthy[number]:
                channel = np.array([worthy[number][winner]])
                agreed[number] = replace(wishes[number], candidates=channel)
    return [agreed[number] for number in range(len(wishes))]


def _padded_readers(
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    needed: BoolArray,
) -> dict[str, list[tuple[str, Mixing, BoolArray, BoolArray]]]:
    """By tensor, the layers that read it and cannot absorb: name, layer, live rows, read [I]."""
    found: dict[str, list[tuple[str, Mixing, BoolArray, BoolArray]]] = {}
    for site in sites:
        mixing = site.operator
        if not isinstance(mixing, Mixing) or mixing.absorbs():
            continue
        output = site.outputs[0]
        live = needed[labels[output]] & np.isnan(constants[output])
        read = mixing.reads([live])
        source = site.inputs[0]
        if read is None or not read.any() or labels[source].size != read.size:
            continue
        rows = (label(site.node), mixing, live.reshape(-1), read.reshape(-1))
        found.setdefault(source, []).append(rows)
    return found


def _weight_name(site: Site) -> str:
    """Of the initializer that a layer multiplies with; empty where there is none."""
    weight = site.node.inputs[1] if len(site.node.inputs) > 1 else None
    return "" if weight is None else str(weight.name)


def _wish(
    tensor: str,
    uses: list[tuple[str, Mixing, BoolArray, BoolArray]],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    needed: BoolArray,
    limits: Limits,
    apart: bool,
) -> Wish | None:
    """What could merge; constants stay apart that a grouped layer reads, or one on a grid."""
    values, atoms = constants[tensor].reshape(-1), labels[tensor].reshape(-1)
    read = np.any([reads for _, _, _, reads in uses], axis=0)
    members = np.flatnonzero(read & ~np.isnan(values) & (values != 0.0))
    if not len(members):
        return None
    if apart or any(mixing.layout.groups > 1 for _, mixing, _, _ in uses):
        needed[atoms[members]] = True
        return None
    staying = members[needed[atoms[members]]]
    gone = members[~needed[atoms[members]]]
    readers = tuple(Reader.of(name, mixing, live, values, gone) for name, mixing, live, _ in uses)
    candidates = staying if len(staying) else members
    largest = limits.ranges.get(tensor, np.inf)
    return Wish(tensor, readers, values, gone, candidates, largest, limits.growth)


def _restated(
    wishes: Sequence[Wish],
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    rigid: BoolArray,
    forward: Callable[[Mapping[str, Constants]], Mapping[str, Constants]],
) -> tuple[dict[str, Constants], Mapping[str, Constants]]:
    """What layers state from now on, and every tensor's constants then.

    A reader divides its kernel by what its input grew by, so no constant may become zero or leave
    the numbers of float32 on the way.
    """
    blocked = rigid | _not_restatable(sites, labels, constants, len(rigid))
    while True:
        overrides = _restatements(wishes, sites, labels, constants, blocked)
        after = forward(overrides) if overrides else constants
        lost = np.zeros_like(blocked)
        for name, atoms in labels.items():
            known = ~np.isnan(constants[name])
            vanished = (after[name] == 0) & (constants[name] != 0)
            lost[atoms[known & (vanished | np.isnan(after[name]))]] = True
        if not lost.any():
            return overrides, after
        blocked = blocked | lost


def _restatements(
    wishes: Sequence[Wish],
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    blocked: BoolArray,
) -> dict[str, Constants]:
    """Larger constants for survivors whose kernels would come out too large."""
    factors: dict[int, float] = {}
    for wish in wishes:
        survivors, target = to_restate(wish)
        atoms = labels[wish.tensor].reshape(-1)[survivors]
        wanted = target / np.abs(wish.values[survivors])
        for atom, times in zip(atoms.tolist(), wanted.tolist(), strict=True):
            factors[atom] = max(factors.get(atom, 1.0), times)
    if not factors:
        return {}
    by_atom = np.ones(len(blocked))
    by_atom[list(factors)] = list(factors.values())
    overrides: dict[str, Constants] = {}
    for site in sites:
        if not isinstance(site.operator, Mixing):
            continue
        name = site.outputs[0]
        atoms, values = labels[name], constants[name]
        factor = np.where(blocked[atoms], 1.0, by_atom[atoms])
        if (factor != 1.0).any():
            overrides[name] = np.where(factor != 1.0, values * factor, np.nan)
    return overrides


def _not_restatable(
    sites: Sequence[Site],
    labels: Mapping[str, Labels],
    constants: Mapping[str, Constants],
    count: int,
) -> BoolArray:
    """Atoms that are not a constant in every tensor, or that a node without a weight needs."""
    blocked = np.zeros(count, dtype=bool)
    for name, atoms in labels.items():
        blocked[atoms[np.isnan(constants[name])]] = True
    for site in sites:
        if site.operator is None:
            continue
        live = [np.ones(labels[name].shape, dtype=bool) for name in site.outputs]
        if any(
            wanted is not None
            for wanted in site.operator.needs(live, [constants[name] for name in site.inputs])
        ):
            for name in site.inputs:
                blocked[labels[name].reshape(-1)] = True
    return blocked
