"""Float TFLite forms of what moves elements and computes none: views, parts, sums of parts, pads.

Transpose is no operator: the file keeps the elements and the order changes. Reshape is one where
the groups of axes that it merges or splits lie together, see tflite_float_order.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_channels import cut, join, select, span
from deploykit.emit.tflite_float_numbers import embedding
from deploykit.emit.tflite_float_order import (
    Order,
    natural,
    reshape_orders,
    stored,
    transposed,
    without,
)
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import Options
from deploykit.emit.tflite_padding import Padding
from deploykit.spec.arrays import IntArray
from deploykit.spec.whole_numbers import table_rows

MOST_SPLIT = 4
"""XNNPACK of LiteRT 2.3.0 takes a SPLIT into up to 4 tensors."""

SLICE_HAS_INPUTS = 10
"""Opset from which Slice has its bounds as inputs."""

REFLECT = 0
"""The value of the schema's enum MirrorPadMode."""


def reshape(node: ir.Node, site: FloatSite) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: a RESHAPE, or none where the shape stays.

    An image that is flattened for Gemms alone keeps its order H, W, C; their columns follow.
    """
    place, output = site.place(node), node.outputs[0]
    shape = read.value_shape(output)
    if _flattens_image(place, shape) and read.may_be_reordered(output):
        _, channels, height, width = place.shape
        index = site.reshaped(place.index, shape)
        site.places[str(output.name)] = Place(index, shape, natural(2), (channels, height, width))
        return
    if place.unflattened is not None:
        raise read.refuse(node, "it reshapes a flattened image again", "reshape the image at once")
    reads, gives = reshape_orders(place.shape, place.order, shape)
    source = site.in_order(place, reads)
    site.put(output, site.reshaped(source, stored(shape, gives)), gives)


def transpose(node: ir.Node, site: FloatSite) -> None:
    """No operator: the same elements, their axes renamed."""
    place = site.place(node)
    default = tuple(reversed(range(len(place.shape))))
    perm = node.attributes.get_ints("perm", default)
    site.put(node.outputs[0], place.index, transposed(place.order, perm))


def concat(node: ir.Node, site: FloatSite) -> None:
    """CONCATENATION, constants included, in the order of the first operand that is computed."""
    rank = len(read.value_shape(node.outputs[0]))
    axis = read.axis(node, rank, 1)
    order = natural(rank)
    for position in range(len(node.inputs)):
        if read.term(node, position) is None:
            order = site.place(node, position).order
            break
    parts = tuple(_whole(node, site, position, order) for position in range(len(node.inputs)))
    index = join(site, parts, order.index(axis), str(node.outputs[0].name))
    site.put(node.outputs[0], index, order)


def split(node: ir.Node, site: FloatSite) -> None:
    """SPLIT into equal parts, else a SLICE for each part."""
    place = site.place(node)
    axis = read.axis(node, len(place.shape), 0)
    at = place.order.index(axis)
    lengths = [read.value_shape(value)[axis] for value in node.outputs]
    used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    if len(set(lengths)) == 1 and len(used) == len(lengths) and 1 < len(lengths) <= MOST_SPLIT:
        results = tuple(site.define(value, place.order) for value in node.outputs)
        inputs = (site.graph.integers("axis", np.array(at)), place.index)
        options = Options("SplitOptions", {"numSplits": len(results)})
        site.graph.split("SPLIT", inputs, results, options)
        return
    first = 0
    for value, length in zip(node.outputs, lengths, strict=True):
        if value in used:
            index = span(site, place.index, at, first, length, str(value.name))
            site.put(value, index, place.order)
        first += length


def slice_(node: ir.Node, site: FloatSite) -> None:
    """SLICE; where it steps over pixels, a 1x1 depthwise convolution with that stride behind it.

    Other steps take a STRIDED_SLICE, which XNNPACK does not.
    """
    place = site.place(node)
    rank = len(place.shape)
    begin, steps = [0] * rank, [1] * rank
    for axis, start, step in _ranges(node, site.opset, place):
        begin[axis], steps[axis] = start, step
    result_shape = read.value_shape(node.outputs[0])
    covered = tuple((size - 1) * step + 1 for size, step in zip(result_shape, steps, strict=True))
    source = place.index
    if covered != place.shape:
        shape = stored(covered, place.order)
        source = site.graph.like(source, str(node.outputs[0].name), shape)
        cut(site, place.index, source, stored(begin, place.order))
    if any(step != 1 for step in steps):
        source = _strided(node, site, source, stored(steps, place.order))
    site.put(node.outputs[0], source, place.order)


def gather(node: ir.Node, site: FloatSite) -> None:
    """One position: SLICE and a RESHAPE; several: the cheapest selection. Of a table: GATHER."""
    ids = node.inputs[1]
    if ids is not None and table_rows(node, ids) is not None and str(ids.name) in site.places:
        embedding(node, site, site.place(node, 1))
        return
    place = site.place(node)
    axis = read.axis(node, len(place.shape), 0)
    indices = read.constant(node.inputs[1])
    if indices is None or indices.ndim > 1:
        raise read.refuse(
            node, "its indices are computed or have several axes", "gather along one list"
        )
    wanted = np.where(indices < 0, indices + place.shape[axis], indices).astype(np.int64)
    _gather(node, site, axis, wanted)


def gather_nd(node: ir.Node, site: FloatSite) -> None:
    """Gather along axis 0, which is what indices [K, 1] mean."""
    indices = read.constant(node.inputs[1])
    batched = node.attributes.get_int("batch_dims", 0) != 0
    if indices is None or indices.shape[1:] != (1,) or batched:
        raise read.refuse(node, "it picks single elements", "use Gather along one axis")
    length = site.place(node).shape[0]
    wanted = np.where(indices < 0, indices + length, indices).astype(np.int64)
    _gather(node, site, 0, wanted.reshape(-1))


def pad(node: ir.Node, site: FloatSite) -> None:
    """PAD, PADV2 where the value is not 0, MIRROR_PAD; pads below zero are a SLICE first."""
    place = site.place(node)
    rank = len(place.shape)
    widths = _pad_widths(node, rank)
    before, after = (stored([pair[i] for pair in widths], place.order) for i in (0, 1))
    source = place.index
    shape = site.graph.tensors[source].shape
    inner = tuple(
        size + min(front, 0) + min(back, 0)
        for size, front, back in zip(shape, before, after, strict=True)
    )
    if inner != shape:
        cropped = site.graph.like(source, f"{read.label(node)}/cropped", inner)
        cut(site, source, cropped, tuple(max(-front, 0) for front in before))
        source = cropped
    table = np.array([[max(f, 0), max(b, 0)] for f, b in zip(before, after, strict=True)])
    if not table.any():
        site.put(node.outputs[0], source, place.order)
        return
    result = site.define(node.outputs[0], place.order)
    inputs = (source, site.graph.integers("pads", table))
    variant = "" if rank <= 4 else "/rank5"
    mode = node.attributes.get_string("mode", "constant")
    fill = read.parameter(node, 2)
    number = node.attributes.get_float("value", 0.0) if fill is None else fill.item()
    if mode == "reflect":
        options = Options("MirrorPadOptions", {"mode": REFLECT})
        site.graph.operator("MIRROR_PAD", inputs, result, options)
    elif mode != "constant":
        raise read.refuse(node, f"its mode is {mode!r}", "use constant or reflect")
    elif number == 0.0:
        site.graph.operator(f"PAD{variant}", inputs, result, Options("PadOptions"))
    else:
        value = site.number(f"{read.label(node)}/value", number)
        options = Options("PadV2Options")
        site.graph.operator(f"PADV2{variant}", (*inputs, value), result, options)


def _flattens_image(place: Place, shape: tuple[int, ...]) -> bool:
    if len(place.shape) != 4 or place.order != (0, 2, 3, 1):
        return False
    batch, *image = place.shape
    return shape == (batch, int(np.prod(image))) and place.unflattened is None


def _whole(node: ir.Node, site: FloatSite, position: int, order: Order) -> int:
    """Index of an operand of a Concat in full, constants too."""
    values = read.term(node, position)
    if values is None:
        return site.source(node, order, position)
    name = f"{read.label(node)}/{position}"
    return site.graph.constant(name, np.ascontiguousarray(values.transpose(order)))


def _ranges(node: ir.Node, opset: int, place: Place) -> list[tuple[int, int, int]]:
    """(axis, first position, step) of every axis that a Slice names."""
    first = 1 if opset >= SLICE_HAS_INPUTS else len(node.inputs)
    starts = read.integers(node, first, "starts", None)
    if starts is None:
        raise read.refuse(node, "it has no starts", "give its bounds as constants")
    axes = read.integers(node, first + 2, "axes", None) or natural(len(starts))
    steps = read.integers(node, first + 3, "steps", None) or (1,) * len(starts)
    ranges = []
    for axis, start, step in zip(axes, starts, steps, strict=True):
        if step < 1:
            raise read.refuse(
                node,
                f"its step is {step} along axis {axis}",
                "turn another axis than the first, or write ONNX alone with --to onnx",
            )
        length = place.shape[axis]
        begin = max(start + length, 0) if start < 0 else min(start, length)
        ranges.append((axis % len(place.shape), begin, step))
    return ranges


def _strided(node: ir.Node, site: FloatSite, source: int, steps: tuple[int, ...]) -> int:
    """Index of every step-th position; the last axis of `source` starts and ends on one."""
    shape = site.graph.tensors[source].shape
    name = f"{read.label(node)}/strided"
    into = tuple(-(-size // step) for size, step in zip(shape, steps, strict=True))
    if len(shape) == 4 and steps[0] == steps[3] == 1 and max(into[1:3]) > 1:
        channels = shape[3]
        ones = np.ones((1, 1, 1, channels), dtype=np.float32)
        inputs = (
            source,
            site.graph.constant(f"{name}/ones", ones),
            site.graph.constant(f"{name}/zeros", np.zeros(channels, dtype=np.float32)),
        )
        options = Options(
            "DepthwiseConv2DOptions",
            {
                "padding": Padding.VALID.value,
                "strideH": steps[1],
                "strideW": steps[2],
                "depthMultiplier": 1,
            },
        )
        return site.step("DEPTHWISE_CONV_2D", inputs, name, into, options)
    bounds = (np.zeros(len(shape)), np.array(shape), np.array(steps))
    parameters = tuple(
        site.graph.integers(what, values)
        for what, values in zip(("begin", "end", "strides"), bounds, strict=True)
    )
    code = "STRIDED_SLICE" if len(shape) <= 4 else "STRIDED_SLICE/rank5"
    return site.step(code, (source, *parameters), name, into, Options("StridedSliceOptions"))


def _gather(node: ir.Node, site: FloatSite, axis: int, wanted: IntArray) -> None:
    place, output = site.place(node), node.outputs[0]
    at = place.order.index(axis)
    source, name = place.index, str(output.name)
    if wanted.ndim:
        site.put(output, select(site, source, at, wanted, name), place.order)
        return
    part = span(site, source, at, int(wanted), 1, name)
    order = without(place.order, {axis})
    site.put(output, site.reshaped(part, stored(read.value_shape(output), order)), order)


def _pad_widths(node: ir.Node, rank: int) -> list[tuple[int, int]]:
    """(before, after) of every axis of the network."""
    pads = read.integers(node, 1, "pads", None)
    if pads is None:
        raise read.refuse(node, "it has no pads", "give its pads as a constant")
    axes = read.integers(node, 3, "", None) or natural(rank)
    half = len(pads) // 2
    widths = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True):
        widths[axis % rank] = (before, after)
    return widths
