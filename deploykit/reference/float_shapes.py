"""Operators of the float evaluator that move values.

Source: ONNX operator specification.
"""

from __future__ import annotations

from math import prod

import numpy as np

from deploykit.reference.float_node import (
    FloatNode,
    Inputs,
    axis_of,
    every,
    given,
    integer_list,
    scalar,
)
from deploykit.spec.arrays import AnyArray

PAD_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
"""Padding modes that repeat values, as numpy names them."""


def flatten(node: FloatNode, inputs: Inputs) -> AnyArray:
    """[d0, ...] -> [d0 * ... * d(axis-1), the rest]."""
    values = given(node, inputs, 0)
    axis = node.integer("axis", 1)
    axis += values.ndim if axis < 0 else 0
    return values.reshape(prod(values.shape[:axis]), prod(values.shape[axis:]))


def reshape(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Target 0 keeps an axis unless zeros are allowed, -1 takes what is left."""
    values = given(node, inputs, 0)
    target = integer_list(node, inputs, 1, "shape") or ()
    if node.integer("allowzero", 0) == 0:
        target = tuple(
            values.shape[i] if length == 0 else length for i, length in enumerate(target)
        )
    return values.reshape(target)


def transpose(values: AnyArray, node: FloatNode) -> AnyArray:
    """Axes in the order of perm; reversed without one."""
    return values.transpose(node.integers("perm", range(values.ndim)[::-1]))


def squeeze(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Drops axes of length 1."""
    return np.squeeze(given(node, inputs, 0), axis=integer_list(node, inputs, 1, "axes"))


def unsqueeze(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Adds axes of length 1, counted in the result."""
    return np.expand_dims(given(node, inputs, 0), integer_list(node, inputs, 1, "axes") or ())


def concat(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Joined along axis."""
    return np.concatenate(every(node, inputs), axis=node.integer("axis", 0))


def split(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, ...]:
    """Parts of the given lengths along axis; equal ones without any, the last one smaller."""
    values = given(node, inputs, 0)
    axis = axis_of(values, node.integer("axis", 0))
    lengths = integer_list(node, inputs, 1, "split")
    if lengths is None:
        count = node.integer("num_outputs", len(node.node.outputs))
        each = -(-values.shape[axis] // count)
        cuts = [each * index for index in range(1, count)]
    else:
        if sum(lengths) != values.shape[axis]:
            raise ValueError(f"parts {lengths} of an axis of {values.shape[axis]}")
        cuts = list(np.cumsum(lengths)[:-1])
    return tuple(np.split(values, cuts, axis=axis))


def slice_bounds(node: FloatNode, inputs: Inputs) -> list[tuple[int, slice]]:
    """For each axis that is cut, counted from the front, the Python slice."""
    values = given(node, inputs, 0)
    starts = integer_list(node, inputs, 1, "starts") or ()
    ends = integer_list(node, inputs, 2, "ends") or ()
    axes = integer_list(node, inputs, 3, "axes") or tuple(range(len(starts)))
    steps = integer_list(node, inputs, 4, "steps") or (1,) * len(starts)
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(values, axis)
        below_first = step < 0 and end < -values.shape[axis]
        cuts.append((axis, slice(start, None if below_first else end, step)))
    return cuts


def slicing(node: FloatNode, inputs: Inputs) -> AnyArray:
    """From start to end by step along the axes; negative bounds count from the back."""
    values = given(node, inputs, 0)
    cuts = [slice(None)] * values.ndim
    for axis, cut in slice_bounds(node, inputs):
        cuts[axis] = cut
    return values[tuple(cuts)]


def gather(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Entries along axis by index; negative ones count from the back."""
    return np.take(given(node, inputs, 0), given(node, inputs, 1), axis=node.integer("axis", 0))


def gather_elements(node: FloatNode, inputs: Inputs) -> AnyArray:
    """out[i][j][k] = x[i][index[i][j][k]][k] for axis 1, and so on."""
    values, indices = given(node, inputs, 0), given(node, inputs, 1)
    axis = axis_of(values, node.integer("axis", 0))
    seen = tuple(
        slice(None) if at == axis else slice(length) for at, length in enumerate(indices.shape)
    )
    return np.take_along_axis(values[seen], indices, axis)


def gather_nd(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Slices of x at the index tuples along the last axis of the indices."""
    values, indices = given(node, inputs, 0), given(node, inputs, 1)
    shared = node.integer("batch_dims", 0)
    batch = np.indices(indices.shape[:-1])[:shared]
    return np.asarray(values[(*batch, *np.moveaxis(indices, -1, 0))])


def scatter_nd(node: FloatNode, inputs: Inputs) -> AnyArray:
    """x with slices replaced by updates at index tuples, or combined with them."""
    values, indices = given(node, inputs, 0).copy(), given(node, inputs, 1)
    mode = node.text("reduction", "none")
    if mode not in SCATTERS:
        raise node.refuse(f"its reduction is {mode!r}")
    place = tuple(np.moveaxis(indices, -1, 0))
    combine = SCATTERS[mode]
    if combine is None:
        values[place] = given(node, inputs, 2)
    else:
        combine.at(values, place, given(node, inputs, 2))
    return values


SCATTERS: dict[str, np.ufunc | None] = {
    "none": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
"""How an update meets the value; None replaces it."""


def expand(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Broadcast, both ways, with the shape that the second input holds."""
    values, target = given(node, inputs, 0), tuple(map(int, given(node, inputs, 1)))
    return np.broadcast_to(values, np.broadcast_shapes(values.shape, target))


def tile(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Repeated along each axis."""
    return np.tile(given(node, inputs, 0), tuple(map(int, given(node, inputs, 1))))


def trilu(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The upper or lower triangle of the last two axes, from the k-th diagonal."""
    function = np.triu if node.integer("upper", 1) else np.tril
    return np.asarray(function(given(node, inputs, 0), int(scalar(inputs, 1) or 0)))


def pad_widths(node: FloatNode, inputs: Inputs) -> list[tuple[int, int]]:
    """Begin and end of each axis; in the input all begins come first, then all ends."""
    values = given(node, inputs, 0)
    widths = integer_list(node, inputs, 1, "pads") or ()
    axes = integer_list(node, inputs, 3, "axes") or tuple(range(values.ndim))
    both = [(0, 0)] * values.ndim
    for index, axis in enumerate(axes):
        both[axis_of(values, axis)] = (widths[index], widths[index + len(axes)])
    return both


def pad(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Constant, reflecting, edge or wrapping padding; constant padding of negative width crops."""
    values = given(node, inputs, 0)
    both = pad_widths(node, inputs)
    mode = node.text("mode", "constant")
    crops = any(width < 0 for pair in both for width in pair)
    if mode != "constant":
        if crops or mode not in PAD_MODES:
            raise node.refuse(f"its mode is {mode} with widths {both}")
        return np.pad(values, both, mode=PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]
    fill = scalar(inputs, 2)
    added = [(max(begin, 0), max(end, 0)) for begin, end in both]
    padded = np.pad(
        values, added, constant_values=node.number("value", 0.0) if fill is None else fill
    )
    return padded[
        tuple(
            slice(max(-begin, 0), length - max(-end, 0))
            for (begin, end), length in zip(both, padded.shape, strict=True)
        )
    ]


def depth_to_space(values: AnyArray, node: FloatNode) -> AnyArray:
    """[N, C * b * b, H, W] -> [N, C, H * b, W * b]; b * b leads in DCR, C in CRD."""
    count, depth, height, width = values.shape
    block = node.integer("blocksize", 1)
    match node.text("mode", "DCR"):
        case "DCR":
            blocks = values.reshape(count, block, block, -1, height, width)
            moved = blocks.transpose(0, 3, 4, 1, 5, 2)
        case "CRD":
            blocks = values.reshape(count, -1, block, block, height, width)
            moved = blocks.transpose(0, 1, 4, 2, 5, 3)
        case other:
            raise node.refuse(f"its mode is {other!r}")
    return moved.reshape(count, depth // (block * block), height * block, width * block)


def space_to_depth(values: AnyArray, node: FloatNode) -> AnyArray:
    """[N, C, H, W] -> [N, b * b * C, H / b, W / b]."""
    count, depth, height, width = values.shape
    block = node.integer("blocksize", 1)
    cells = values.reshape(count, depth, height // block, block, width // block, block)
    moved = cells.transpose(0, 3, 5, 1, 2, 4)
    return moved.reshape(count, depth * block * block, height // block, width // block)
