"""Parts of a tensor along one axis of the file, in the forms that XNNPACK takes."""

from __future__ import annotations

from math import prod

import numpy as np

from deploykit.emit.tflite_float_order import Shape
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Options
from deploykit.emit.tflite_lowering import reshape
from deploykit.spec.arrays import IntArray

MOST_JOINED = 5
"""XNNPACK of LiteRT 2.3.0 takes a CONCATENATION of up to 5 tensors."""

WIDEST_SELECTION = 96
"""Channels up to which a 1x1 convolution selects faster than a GATHER does.

ms, GATHER against convolution, on x86-64 with AVX512: 64 of 64 channels, 28x28, 0.15 and 0.07;
81 of 116, 28x28, 0.15 and 0.16; 162 of 232, 14x14, 0.08 and 0.14. A GATHER ends XNNPACK's part.
"""


def depth_major(channels: int, block: int) -> IntArray:
    """Channels of CRD in the order of DCR. depth_major(8, 2) -> [0, 4, 1, 5, 2, 6, 3, 7]"""
    return np.arange(channels).reshape(-1, block * block).T.reshape(-1)


def cut(site: FloatSite, source: int, result: int, begin: Shape) -> None:
    """SLICE of the result's shape from `begin`, both in the file's axes."""
    shape = site.graph.tensors[result].shape
    code = "SLICE" if len(shape) <= 4 else "SLICE/rank5"
    inputs = (
        source,
        site.graph.integers("begin", np.array(begin)),
        site.graph.integers("size", np.array(shape)),
    )
    site.graph.operator(code, inputs, result, Options("SliceOptions"))


def span(site: FloatSite, source: int, axis: int, first: int, length: int, name: str) -> int:
    """Index of `length` positions from `first` along an axis; the source itself if that is all."""
    shape = site.graph.tensors[source].shape
    if length == shape[axis]:
        return source
    result = site.graph.like(source, name, resized(shape, axis, length))
    cut(site, source, result, tuple(first if i == axis else 0 for i in range(len(shape))))
    return result


def resized(shape: Shape, axis: int, length: int) -> Shape:
    """A shape with another length along one axis."""
    return tuple(length if i == axis else size for i, size in enumerate(shape))


def join(site: FloatSite, parts: tuple[int, ...], axis: int, name: str) -> int:
    """Index of a concatenation along an axis of the file.

    More than XNNPACK takes at once become a chain, whose beginnings are shared: the inputs of a
    dense block's layers are each other's beginnings.
    """
    if len(parts) == 1:
        return parts[0]
    if (axis, parts) in site.joined:
        return site.joined[axis, parts]
    if len(parts) > MOST_JOINED:
        known = (n for n in range(2, len(parts)) if (axis, parts[:n]) in site.joined)
        shared = max(known, default=MOST_JOINED)
        head = join(site, parts[:shared], axis, f"{name}/head")
        result = join(site, (head, *parts[shared:]), axis, name)
    else:
        shapes = [site.graph.tensors[part].shape for part in parts]
        shape = resized(shapes[0], axis, sum(shape[axis] for shape in shapes))
        options = Options("ConcatenationOptions", {"axis": axis})
        result = site.step("CONCATENATION", parts, name, shape, options)
    site.joined[axis, parts] = result
    return result


def select(site: FloatSite, source: int, axis: int, wanted: IntArray, name: str) -> int:
    """Index of the positions `wanted` along an axis, in this order; repeats are allowed.

    By the cheapest form: a SLICE, a channel shuffle by a TRANSPOSE, a few SLICEs joined, a 1x1
    convolution that picks channels (exact: one factor is 1, the others are 0), or a GATHER.
    """
    shape = site.graph.tensors[source].shape
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
    if len(runs) == 1:
        return span(site, source, axis, int(wanted[0]), len(wanted), name)
    groups = shuffle_groups(wanted, shape[axis])
    if groups is not None:
        return _shuffled(site, source, axis, groups, name)
    if len(runs) <= MOST_JOINED:
        parts = tuple(
            span(site, source, axis, int(run[0]), len(run), f"{name}/{position}")
            for position, run in enumerate(runs)
        )
        return join(site, parts, axis, name)
    into = resized(shape, axis, len(wanted))
    if len(shape) == 4 and axis == 3 and shape[3] <= WIDEST_SELECTION:
        picks = np.zeros((len(wanted), 1, 1, shape[3]), dtype=np.float32)
        picks[np.arange(len(wanted)), 0, 0, wanted] = 1
        inputs = (
            source,
            site.graph.constant(f"{name}/picks", picks),
            site.graph.constant(f"{name}/zeros", np.zeros(len(wanted), dtype=np.float32)),
        )
        options = Options("Conv2DOptions", {"padding": 1, "strideH": 1, "strideW": 1})
        return site.step("CONV_2D", inputs, name, into, options)
    indices = site.graph.integers("indices", wanted)
    return site.step(
        "GATHER", (source, indices), name, into, Options("GatherOptions", {"axis": axis})
    )


def shuffle_groups(wanted: IntArray, length: int) -> int | None:
    """Groups of a channel shuffle. shuffle_groups([0, 2, 4, 1, 3, 5], 6) -> 3, None for others."""
    if len(wanted) != length or length < 4:
        return None
    step = int(wanted[1])
    if step < 2 or length % step:
        return None
    expected = np.arange(length).reshape(-1, step).T.reshape(-1)
    return length // step if np.array_equal(wanted, expected) else None


def _shuffled(site: FloatSite, source: int, axis: int, groups: int, name: str) -> int:
    shape = site.graph.tensors[source].shape
    before, each, after = prod(shape[:axis]), shape[axis] // groups, prod(shape[axis + 1 :])
    apart = site.reshaped(source, (before, groups, each, after))
    axes = site.graph.integers("permutation", np.array([0, 2, 1, 3]))
    turned = site.step(
        "TRANSPOSE",
        (apart, axes),
        f"{name}/shuffled",
        (before, each, groups, after),
        Options("TransposeOptions"),
    )
    result = site.graph.like(source, name, shape)
    reshape(site.graph, turned, result)
    return result
