"""Operators that put integers elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploykit.reference.window import pad
from deploykit.spec.arrays import Int8Array
from deploykit.spec.operators import Concat, DepthToSpace, Gather, Pad, Repeat, Slice, SpaceToDepth


def concat(parts: Sequence[Int8Array], operator: Concat) -> Int8Array:
    """One behind another."""
    return np.concatenate(parts, axis=operator.axis)


def slice_(values: Int8Array, operator: Slice) -> Int8Array:
    """x[start:stop:step] along one axis."""
    chosen = [slice(None)] * values.ndim
    chosen[operator.axis] = slice(operator.start, operator.stop, operator.step)
    return np.ascontiguousarray(values[tuple(chosen)])


def gather(values: Int8Array, operator: Gather) -> Int8Array:
    """What stands at the indices along one axis."""
    return np.take(values, operator.indices, axis=operator.axis)


def repeat(values: Int8Array, operator: Repeat) -> Int8Array:
    """[N, C, H, W] -> [N, C, rows * H, columns * W]."""
    return values.repeat(operator.rows, axis=2).repeat(operator.columns, axis=3)


def depth_to_space(values: Int8Array, operator: DepthToSpace) -> Int8Array:
    """[N, b*b*C, H, W] -> [N, C, b*H, b*W]."""
    block = operator.block
    batch, depth, height, width = values.shape
    channels = depth // (block * block)
    pixels = values.reshape(batch, block, block, channels, height, width)
    placed = pixels.transpose(0, 3, 4, 1, 5, 2)
    return placed.reshape(batch, channels, height * block, width * block)


def space_to_depth(values: Int8Array, operator: SpaceToDepth) -> Int8Array:
    """[N, C, b*H, b*W] -> [N, b*b*C, H, W]."""
    block = operator.block
    batch, channels, height, width = values.shape
    shape = (batch, channels, height // block, block, width // block, block)
    placed = values.reshape(shape).transpose(0, 3, 5, 1, 2, 4)
    return placed.reshape(batch, block * block * channels, height // block, width // block)


def pad_pixels(values: Int8Array, operator: Pad) -> Int8Array:
    """[N, C, H, W] -> [N, C, top + H + bottom, left + W + right]."""
    return pad(values, operator.pads, operator.fill)
