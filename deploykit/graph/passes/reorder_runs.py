"""An order of every group's channels in which moved tensors are few runs of their sources.

Channels of a group that go the same way, to the same tensors and there to channels that go the
same way, form a *class*: the coarsest partition that every link between a source's channel and the
moved tensor's channel respects (partition refinement; Paige and Tarjan 1987). A link between two
classes is one to one, so that an order of one class is an order of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deploykit.graph.passes.reorder_groups import Moved, Source

Channel = tuple[int, int]
"""A group, and a position in its present order."""

Link = tuple[int, int, int]
"""Which moved tensor, which of its sources, which of several uses of one channel."""


@dataclass(frozen=True)
class Run:
    """Channels start <= k < stop of a tensor, in the new order."""

    tensor: str
    start: int
    stop: int


@dataclass(frozen=True)
class Ordering:
    """orders: by group, which present position stands at every new one; only those that change.

    runs: by moved tensor, what it is put together from; equal parts of a source are equal runs.
    """

    orders: Mapping[int, tuple[int, ...]]
    runs: Mapping[str, tuple[Run, ...]]


def find_ordering(
    moved: Mapping[str, Moved], of: Mapping[str, int], sizes: Mapping[int, int], fixed: set[int]
) -> Ordering:
    """An order in which these moved tensors are few runs. of: group by tensor; sizes: by group."""
    links = _Links(moved, of)
    classes = _classes(links, sizes)
    within = _orders_within(classes, links, fixed)
    orders: dict[int, tuple[int, ...]] = {}
    place: dict[Channel, int] = {}
    for group, size in sizes.items():
        if group in fixed:
            order = list(range(size))
        else:
            order = _order_of(group, classes, within, links, place)
        orders[group] = tuple(order)
        place.update({(group, position): new for new, position in enumerate(order)})
    runs = {name: _runs(held, orders[of[name]], of, place) for name, held in moved.items()}
    changed = {g: order for g, order in orders.items() if order != tuple(range(len(order)))}
    return Ordering(changed, _cut_alike(runs))


class _Links:
    """Every channel's links: to where it is moved (True), and from where (False)."""

    def __init__(self, moved: Mapping[str, Moved], of: Mapping[str, int]) -> None:
        self.of: dict[Channel, dict[tuple[bool, Link], Channel]] = {}
        for number, (name, held) in enumerate(moved.items()):
            sources: dict[str, int] = {}
            times: dict[Source, int] = {}
            for position, source in enumerate(held.origin):
                which = sources.setdefault(source[0], len(sources))
                time = times.get(source, 0)
                times[source] = time + 1
                link = (number, which, time)
                start, end = (of[source[0]], source[1]), (of[name], position)
                self.of.setdefault(start, {})[True, link] = end
                self.of.setdefault(end, {})[False, link] = start

    def at(self, channel: Channel) -> Mapping[tuple[bool, Link], Channel]:
        """Of one channel."""
        return self.of.get(channel, {})

    def towards(self, channel: Channel, forward: bool) -> list[Link]:
        """Of one channel in one direction, in order."""
        return sorted(link for ahead, link in self.at(channel) if ahead is forward)


def _classes(links: _Links, sizes: Mapping[int, int]) -> dict[Channel, int]:
    """Class by channel."""
    channels = [(group, position) for group, size in sizes.items() for position in range(size)]
    found = {channel: channel[0] for channel in channels}
    count = len(sizes)
    while True:
        names: dict[object, int] = {}
        refined: dict[Channel, int] = {}
        for channel in channels:
            ways = ((link, found[other]) for link, other in links.at(channel).items())
            key = (found[channel], tuple(sorted(ways)))
            refined[channel] = names.setdefault(key, len(names))
        if len(names) == count:
            return refined
        found, count = refined, len(names)


def _orders_within(
    classes: Mapping[Channel, int], links: _Links, fixed: set[int]
) -> dict[int, list[Channel]]:
    """The channels of every class in an order that follows along the links.

    It starts from classes whose order is fixed. Where links lead round in a circle back to another
    order there is none that suits all; the runs show it.
    """
    members: dict[int, list[Channel]] = {}
    for channel, name in classes.items():
        members.setdefault(name, []).append(channel)
    done: dict[int, list[Channel]] = {}
    for first in sorted(members, key=lambda name: (members[name][0][0] not in fixed, name)):
        if first in done:
            continue
        done[first] = sorted(members[first])
        waiting = [first]
        while waiting:
            order = done[waiting.pop()]
            for link, other in links.at(order[0]).items():
                if classes[other] not in done:
                    done[classes[other]] = [links.at(channel)[link] for channel in order]
                    waiting.append(classes[other])
    return done


def _order_of(
    group: int,
    classes: Mapping[Channel, int],
    within: Mapping[int, list[Channel]],
    links: _Links,
    place: Mapping[Channel, int],
) -> list[int]:
    """Positions of a group in its new order.

    As its sources are ordered, one behind the other, where they are; else class by class, in the
    order of who reads them, what nobody reads last.
    """
    positions = [channel[1] for channel in classes if channel[0] == group]
    came = [_first_source((group, position), links, place) for position in positions]
    if all(source is not None for source in came):
        return [position for _, position in sorted(zip(came, positions, strict=True))]
    names = dict.fromkeys(classes[group, position] for position in positions)

    def rank(name: int) -> tuple[bool, list[Link], Channel]:
        readers = links.towards(within[name][0], forward=True)
        return not readers, readers, min(within[name])

    return [channel[1] for name in sorted(names, key=rank) for channel in within[name]]


def _first_source(
    channel: Channel, links: _Links, place: Mapping[Channel, int]
) -> tuple[Link, int] | None:
    """The first link that leads here and the new place of where it starts, if that is known."""
    for link in links.towards(channel, forward=False)[:1]:
        start = links.at(channel)[False, link]
        if start in place:
            return link, place[start]
    return None


def _runs(
    held: Moved, order: Sequence[int], of: Mapping[str, int], place: Mapping[Channel, int]
) -> list[Run]:
    """A moved tensor, in the new orders, as the fewest runs of its sources."""
    runs: list[Run] = []
    for position in order:
        tensor, old = held.origin[position]
        new = place[of[tensor], old]
        if runs and runs[-1].tensor == tensor and runs[-1].stop == new:
            runs[-1] = Run(tensor, runs[-1].start, new + 1)
        else:
            runs.append(Run(tensor, new, new + 1))
    return runs


def _cut_alike(runs: Mapping[str, Iterable[Run]]) -> dict[str, tuple[Run, ...]]:
    """The same runs, cut where any other of the same tensor begins or ends."""
    ends: dict[str, set[int]] = {}
    for several in runs.values():
        for run in several:
            ends.setdefault(run.tensor, set()).update((run.start, run.stop))
    ordered = {tensor: sorted(places) for tensor, places in ends.items()}
    return {
        name: tuple(part for run in several for part in _parts(run, ordered[run.tensor]))
        for name, several in runs.items()
    }


def _parts(run: Run, ends: Sequence[int]) -> Iterator[Run]:
    inner = [end for end in ends if run.start <= end <= run.stop]
    for start, stop in pairwise(inner):
        yield Run(run.tensor, start, stop)
