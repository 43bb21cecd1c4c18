"""Resize and Upsample of the float evaluator: an interpolation along each axis in turn.

Source: ONNX operator specification, Resize; for opset 10 and Upsample, which leave rounding open,
ONNX Runtime: asymmetric coordinates, nearest rounds down where it enlarges and up where not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, axis_of, given, optional
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, IntArray


@dataclass(frozen=True)
class Stretch:
    """One axis: its length before and after, and the factor between them."""

    length: int
    size: int
    scale: float


@dataclass(frozen=True)
class Stencil:
    """For each output position the input positions read and their weights, both [size, taps]."""

    positions: IntArray
    weights: Float64Array


def resize(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Interpolates along each axis whose length changes."""
    values = given(node, inputs, 0)
    for axis, stretch in enumerate(_stretches(node, inputs)):
        if stretch.size == stretch.length and stretch.scale == 1.0:
            continue
        stencil = _stencil(node, stretch)
        shape = (-1, *(1,) * (values.ndim - axis - 1))
        if node.text("mode", "nearest") == "nearest":
            values = np.take(values, stencil.positions[:, 0], axis=axis)
            continue
        weights = stencil.weights.astype(values.dtype)
        parts = (
            np.take(values, stencil.positions[:, tap], axis=axis) * weights[:, tap].reshape(shape)
            for tap in range(weights.shape[1])
        )
        total = next(parts)
        for part in parts:
            total += part
        values = total
    return values


def _stretches(node: FloatNode, inputs: Inputs) -> list[Stretch]:
    """How each axis of the input changes; axes that are not named stay."""
    values = given(node, inputs, 0)
    if node.integer("antialias", 0):
        raise node.refuse("it is antialiased")
    scales, sizes = _factors(node, inputs)
    axes = [axis_of(values, axis) for axis in node.integers("axes", range(values.ndim)) or ()]
    stretches = [Stretch(length, length, 1.0) for length in values.shape]
    if sizes is None:
        for axis, scale in zip(axes, scales, strict=True):
            length = values.shape[axis]
            stretches[axis] = Stretch(
                length, int(np.floor(np.float32(length) * np.float32(scale))), scale
            )
        return stretches
    factors = [size / values.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    match node.text("keep_aspect_ratio_policy", "stretch"):
        case "stretch":
            pass
        case "not_larger":
            factors = [min(factors)] * len(factors)
            sizes = tuple(int(values.shape[axis] * factors[0] + 0.5) for axis in axes)
        case "not_smaller":
            factors = [max(factors)] * len(factors)
            sizes = tuple(int(values.shape[axis] * factors[0] + 0.5) for axis in axes)
        case other:
            raise node.refuse(f"its keep_aspect_ratio_policy is {other!r}")
    for axis, size, factor in zip(axes, sizes, factors, strict=True):
        stretches[axis] = Stretch(values.shape[axis], size, factor)
    return stretches


def _factors(node: FloatNode, inputs: Inputs) -> tuple[tuple[float, ...], tuple[int, ...] | None]:
    """Scales, and sizes where they are given in their place."""
    scales = optional(inputs, 1 if leaves_rounding_open(node) else 2)
    if scales is not None and scales.size:
        return tuple(float(scale) for scale in scales), None
    sizes = None if leaves_rounding_open(node) else optional(inputs, 3)
    if sizes is None:
        raise node.refuse("it has neither scales nor sizes")
    return (), tuple(int(size) for size in sizes)


def _stencil(node: FloatNode, stretch: Stretch) -> Stencil:
    spots = _coordinates(node, stretch)
    last = stretch.length - 1
    match node.text("mode", "nearest"):
        case "nearest":
            nearest = _rounded(node, stretch, spots)
            return Stencil(np.clip(nearest, 0, last)[:, None], np.ones((stretch.size, 1)))
        case "linear":
            spots = np.clip(spots, 0, last)
            low = np.floor(spots).astype(np.int64)
            part = spots.astype(np.float64) - low
            positions = np.stack([low, np.minimum(low + 1, last)], axis=1)
            return Stencil(positions, np.stack([1 - part, part], axis=1))
        case "cubic":
            return _cubic(node, stretch, spots)
        case other:
            raise node.refuse(f"its mode is {other!r}")


def _coordinates(node: FloatNode, stretch: Stretch) -> Float32Array:
    """Where on the input axis each output position lies.

    In float32, as runtimes compute it: a position on the edge between two must fall as theirs.
    """
    index = np.arange(stretch.size, dtype=np.float32)
    scale, half = np.float32(stretch.scale), np.float32(0.5)
    default = "asymmetric" if leaves_rounding_open(node) else "half_pixel"
    match node.text("coordinate_transformation_mode", default):
        case "half_pixel":
            return (index + half) / scale - half
        case "pytorch_half_pixel":
            return (index + half) / scale - half if stretch.size > 1 else index
        case "half_pixel_symmetric":
            exact = scale * np.float32(stretch.length)
            start = np.float32(stretch.length / 2) * (1 - np.float32(stretch.size) / exact)
            return start + (index + half) / scale - half
        case "align_corners":
            return index * np.float32(stretch.length - 1) / np.float32(max(stretch.size - 1, 1))
        case "asymmetric":
            return index / scale
        case other:
            raise node.refuse(f"its coordinates are {other!r}")


def _rounded(node: FloatNode, stretch: Stretch, spots: Float32Array) -> IntArray:
    if leaves_rounding_open(node):
        mode = "floor" if stretch.scale >= 1 else "ceil"
    else:
        mode = node.text("nearest_mode", "round_prefer_floor")
    match mode:
        case "round_prefer_floor":
            rounded = np.ceil(spots - 0.5)
        case "round_prefer_ceil":
            rounded = np.floor(spots + 0.5)
        case "floor":
            rounded = np.floor(spots)
        case "ceil":
            rounded = np.ceil(spots)
        case other:
            raise node.refuse(f"its nearest_mode is {other!r}")
    return np.asarray(rounded, dtype=np.int64)


def _cubic(node: FloatNode, stretch: Stretch, spots: Float32Array) -> Stencil:
    """Keys' kernel over four positions, a = -0.75 unless written.

    w(d) = (a + 2) d^3 - (a + 3) d^2 + 1 for d <= 1, a d^3 - 5 a d^2 + 8 a d - 4 a for d < 2.
    """
    a = node.number("cubic_coeff_a", -0.75)
    low = np.floor(spots)
    wanted = low[:, None] + np.arange(-1, 3)
    distance = np.abs(spots[:, None].astype(np.float64) - wanted)
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    weights = np.where(distance <= 1, near, far)
    if node.integer("exclude_outside", 0):
        weights = np.where((wanted >= 0) & (wanted < stretch.length), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    return Stencil(np.clip(wanted, 0, stretch.length - 1).astype(np.int64), weights)


def leaves_rounding_open(node: FloatNode) -> bool:
    """Whether the node is an Upsample or a Resize before opset 11, which have no such modes."""
    return node.node.op_type == "Upsample" or node.opset <= 10
