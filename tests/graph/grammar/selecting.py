"""Taking apart along an axis: Split, Slice, Gather, channel shuffles, and Pad that adds to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.graph.grammar.growing import Growing, Shape, Step, ints


def _axis(growing: Growing) -> int:
    return 1 if growing.chance(0.75) else growing.count(1, len(growing.shape) - 1)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def split(growing: Growing) -> None:
    """Into two or three parts, equal or not; perhaps concatenated again in another order."""
    shape, axis = growing.shape, _axis(growing)
    length = shape[axis]
    if length < 2:
        return
    cuts = growing.rng.choice(np.arange(1, length), size=min(growing.count(1, 2), length - 1))
    bounds = [0, *sorted({int(cut) for cut in cuts}), length]
    sizes = [b - a for a, b in pairwise(bounds)]
    shapes = [_with(shape, axis, size) for size in sizes]
    if len(set(sizes)) == 1 and growing.chance(0.5):
        parts = growing.several("Split", shapes, [growing.last], axis=axis, num_outputs=len(sizes))
    else:
        parts = growing.several("Split", shapes, [growing.last, ints(*sizes)], axis=axis)
    growing.last = growing.pick(*parts)
    if growing.chance(0.4):
        order = [parts[k] for k in growing.rng.permutation(len(parts))]
        growing.join("Concat", shape, order, axis=axis)


def slicing(growing: Growing) -> None:
    """Of one axis, by any step; of two axes by runs."""
    shape, axis = growing.shape, _axis(growing)
    length = shape[axis]
    step = growing.pick(1, 1, 2, 3, -1, -2)
    if step > 0:
        start, end = growing.count(0, length - 1), growing.pick(length, 2**31, length - 1)
        entries = range(length)[start:end:step]
    else:
        start, end = growing.pick(length - 1, -1, length + 4), growing.pick(-(2**62), 0)
        entries = range(length)[start : None if end < 0 else end : step]
    if not len(entries):
        return
    starts, ends, axes, steps = [start], [end], [axis], [step]
    whole = _with(shape, axis, len(entries))
    if len(shape) == 4 and axis > 1 and growing.chance(0.4):
        other = 5 - axis
        starts, ends = [*starts, 0], [*ends, max(1, shape[other] - 1)]
        axes, steps = [*axes, other - 4], [*steps, 1]
        whole = _with(whole, other, max(1, shape[other] - 1))
    growing.put("Slice", whole, *(ints(*numbers) for numbers in (starts, ends, axes, steps)))


def gather(growing: Growing) -> None:
    """Any entries in any order, twice or never; or a single one, whose axis goes."""
    shape, axis = growing.shape, _axis(growing)
    if len(shape) > 2 and growing.chance(0.2):
        index = np.array(growing.count(-shape[axis], shape[axis] - 1), dtype=np.int64)
        growing.put("Gather", (*shape[:axis], *shape[axis + 1 :]), index, axis=axis)
        return
    count = growing.count(1, min(6, shape[axis] + 2))
    index = growing.rng.integers(-shape[axis], shape[axis], size=count)
    if growing.fits(_with(shape, axis, count)):
        growing.put("Gather", _with(shape, axis, count), index.astype(np.int64), axis=axis)


def shuffle(growing: Growing) -> None:
    """A permutation of the channels: Gather, or Reshape, Transpose, Reshape."""
    if not growing.is_image:
        return
    shape, groups = growing.shape, growing.divisor(growing.shape[1])
    per = shape[1] // groups
    if growing.chance(0.4):
        order = np.arange(shape[1]).reshape(groups, per).T.reshape(-1)
        growing.put("Gather", shape, order, axis=1)
        return
    growing.put("Reshape", (1, groups, per, *shape[2:]), ints(1, groups, per, *shape[2:]))
    growing.put("Transpose", (1, per, groups, *shape[2:]), perm=[0, 2, 1, 3, 4])
    if growing.chance(0.15):
        growing.put("Relu", growing.shape)
    growing.put("Reshape", shape, ints(1, growing.pick(shape[1], -1), *shape[2:]))


def pad(growing: Growing) -> None:
    """Around the image in any mode; before and behind the channels with a constant."""
    shape, rank = growing.shape, len(growing.shape)
    mode = growing.pick("constant", "constant", "edge", "reflect")
    widths = np.zeros((2, rank), dtype=np.int64)
    if rank == 4 and growing.chance(0.7):
        widths[:, 2:] = growing.rng.integers(0, 2, size=(2, 2))
    if mode == "constant" and growing.chance(0.5):
        widths[:, 1] = growing.rng.integers(0, 3, size=2)
    if mode == "reflect" and (np.array(shape) <= widths.max(axis=0)).any():
        return
    whole = tuple(int(size) for size in np.array(shape) + widths.sum(axis=0))
    if widths.any() and growing.fits(whole):
        fill = np.array(growing.pick(0.0, 0.0, 0.5, 2.0))
        operands = [ints(*widths.reshape(-1).tolist()), *([fill] if mode == "constant" else [])]
        growing.put("Pad", whole, *operands, mode=mode)


STEPS: dict[str, Step] = {
    "split": split,
    "slicing": slicing,
    "gather": gather,
    "shuffle": shuffle,
    "pad": pad,
}
