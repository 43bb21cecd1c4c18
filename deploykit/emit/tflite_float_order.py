"""In which order a float file keeps a tensor's axes.

An order lists the network's axes as they come in the file: (0, 2, 3, 1) is [N, C, H, W] kept as
[N, H, W, C]. Axes of length 1 may lie anywhere without moving an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Order = tuple[int, ...]
Shape = tuple[int, ...]


def natural(rank: int) -> Order:
    """The network's own order. natural(3) -> (0, 1, 2)"""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """channels_last(4) -> (0, 2, 3, 1); ranks below 3 have no pixels and stay natural."""
    return natural(rank) if rank < 3 else (0, *range(2, rank), 1)


def port_order(rank: int) -> Order:
    """Order of a graph input or output: images come as NHWC, all else as in the network."""
    return channels_last(rank) if rank == 4 else natural(rank)


def stored(shape: Sequence[int], order: Order) -> Shape:
    """Shape in the file. stored((1, 3, 8, 6), (0, 2, 3, 1)) -> (1, 8, 6, 3)"""
    return tuple(shape[axis] for axis in order)


def permutation(before: Order, after: Order) -> Order:
    """Axes of the TRANSPOSE that brings one order into another."""
    return tuple(before.index(axis) for axis in after)


def transposed(order: Order, perm: Sequence[int]) -> Order:
    """Order of Transpose(perm) of a tensor whose elements stay where they are."""
    return tuple(list(perm).index(axis) for axis in order)


def without(order: Order, gone: Iterable[int]) -> Order:
    """Order after axes are taken away. without((0, 2, 3, 1), {2, 3}) -> (0, 1)"""
    removed = set(gone)
    left = sorted(axis for axis in order if axis not in removed)
    return tuple(left.index(axis) for axis in order if axis not in removed)


def with_last(order: Order, axis: int) -> Order:
    """The same order with one axis moved to the end of the file's shape."""
    return (*(other for other in order if other != axis), axis)


def widened(order: Order, rank: int) -> Order:
    """Order of a tensor that broadcasting gives leading axes of length 1."""
    extra = rank - len(order)
    return (*range(extra), *(axis + extra for axis in order))


def same_elements(shape: Sequence[int], left: Order, right: Order) -> bool:
    """Whether two orders differ in axes of length 1 only, so that a RESHAPE leads across."""
    return _long(shape, left) == _long(shape, right)


def reshape_orders(shape: Shape, order: Order, result: Shape) -> tuple[Order, Order]:
    """Orders that a RESHAPE from `shape` to `result` reads and gives; `order` is what there is.

    Both shapes fall into groups of axes with equal products. A group's axes have to follow each
    other in the file; where they do not, each group goes to where its last axis lies, so that
    channels stay last: in a channel shuffle only the two channel axes change places.
    """
    groups = _groups(shape, result)
    present = _long(shape, order)
    last = {axis: position for position, axis in enumerate(present)}
    ordered = sorted(groups, key=lambda group: max(last[axis] for axis in group[0]))
    wanted = tuple(axis for group in ordered for axis in group[0])
    reads = order if wanted == present else _with_short(shape, wanted)
    gives = tuple(axis for group in ordered for axis in group[1])
    return reads, _with_short(result, gives)


def _groups(shape: Shape, result: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes longer than 1 whose lengths multiply to the same number."""
    left, right = _long(shape, natural(len(shape))), _long(result, natural(len(result)))
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left):
        axes, into = [left[i]], [right[j]]
        have, want = shape[left[i]], result[right[j]]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                axes.append(left[i])
                have *= shape[left[i]]
                i += 1
            else:
                into.append(right[j])
                want *= result[right[j]]
                j += 1
        groups.append((axes, into))
    return groups


def _long(shape: Sequence[int], order: Order) -> Order:
    return tuple(axis for axis in order if shape[axis] != 1)


def _with_short(shape: Shape, long_axes: Order) -> Order:
    """A full order with these axes in sequence: the port's order or the natural one if they fit."""
    rank = len(shape)
    for candidate in (port_order(rank), natural(rank)):
        if _long(shape, candidate) == long_axes:
            return candidate
    return (*(axis for axis in range(rank) if shape[axis] == 1), *long_axes)
