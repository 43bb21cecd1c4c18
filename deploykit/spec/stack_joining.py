"""Concatenation for several samples, whose constants each sample gets a copy of."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray
from deploykit.spec.stack import Stack, numbers_of, shape_of


def concat(node: ir.Node, stack: Stack) -> None:
    """Behind N where it joins along axis 0 or with constants.

    A constant joins by a sum, for no operator copies it as often as there are samples: the parts
    beside it are padded with zeros, and it is added where they lie. x + 0 and 0 + c are exact.
    """
    output = node.outputs[0]
    shape = shape_of(output)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    held = [numbers_of(value) for value in node.inputs]
    if all(array is None for array in held):
        if axis > 0:
            stack.copy(node)
        else:
            stack.lift(node, len(shape), attributes={"axis": 1})
        return
    parts = [
        stack.apart(value, len(shape)) if array is None else array
        for value, array in zip(node.inputs, held, strict=True)
        if value is not None
    ]
    padded = [_padded(part, around, axis + 1, stack) for part, around in _gaps(parts, axis)]
    joined = padded[0]
    if len(padded) > 1:
        joined = stack.step("Concat", padded, (stack.samples, *shape), output, {"axis": axis + 1})
    added = stack.constant(f"{output.name}/constants", _constants(parts, axis, shape))
    total = stack.step("Add", [joined, added], (stack.samples, *shape), output)
    stack.together(total, output)


def _gaps(parts: list[ir.Value | AnyArray], axis: int) -> list[tuple[ir.Value, tuple[int, int]]]:
    """Each part that varies, and how many positions of constants lie before and behind it.

    Those between two parts go to the first.
    """
    found: list[tuple[ir.Value, list[int]]] = []
    leading = 0
    for part in parts:
        if isinstance(part, ir.Value):
            found.append((part, [leading, 0]))
            leading = 0
        elif found:
            found[-1][1][1] += part.shape[axis]
        else:
            leading += part.shape[axis]
    return [(part, (around[0], around[1])) for part, around in found]


def _padded(part: ir.Value, around: tuple[int, int], axis: int, stack: Stack) -> ir.Value:
    if around == (0, 0):
        return part
    shape = shape_of(part)
    before, after = ([0] * len(shape) for _ in around)
    before[axis], after[axis] = around
    pads = stack.numbers(f"{part.name}/pads", (*before, *after))
    wide = tuple(size + (sum(around) if i == axis else 0) for i, size in enumerate(shape))
    return stack.step("Pad", [part, pads], wide, part)


def _constants(parts: list[ir.Value | AnyArray], axis: int, shape: tuple[int, ...]) -> AnyArray:
    """[1, *shape] with the constants in their places, zero elsewhere."""
    whole = np.zeros(shape, np.float32)
    first = 0
    for part in parts:
        length = shape_of(part)[axis + 1] if isinstance(part, ir.Value) else part.shape[axis]
        if not isinstance(part, ir.Value):
            place = [slice(None)] * len(shape)
            place[axis] = slice(first, first + length)
            whole[tuple(place)] = part
        first += length
    return whole[None]
