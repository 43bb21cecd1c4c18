"""Float TFLite forms of what changes the resolution: Resize, DepthToSpace and SpaceToDepth."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_channels import depth_major, select
from deploykit.emit.tflite_float_order import channels_last
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Options
from deploykit.emit.tflite_lowering import reshape
from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.arrays import Float32Array, IntArray

NHWC = channels_last(4)
ALONG = 2
"""The axis of a sequence in [N, 1, L, C]."""

COORDINATES = {
    "half_pixel": {"halfPixelCenters": True},
    "asymmetric": {},
    "align_corners": {"alignCorners": True},
}
"""TFLite's ways to sample, by ONNX's name for them, and the options that choose them."""


def resize(node: ir.Node, site: FloatSite) -> None:
    """RESIZE_BILINEAR; nearest by a MUL with ones that repeats pixels, where all repeat alike.

    Coordinates are compared number by number: what TFLite computes elsewhere is refused.
    Other nearest forms are RESIZE_NEAREST_NEIGHBOR, which XNNPACK does not take.
    A sequence [N, C, L] is an image of one row.
    Sources: ONNX operator Resize; tensorflow/lite/kernels/internal/reference, resize_*.h.
    """
    mode = node.attributes.get_string("mode", "nearest")
    smoothed = node.attributes.get_int("antialias", 0) != 0
    if mode not in {"nearest", "linear"} or smoothed:
        raise read.refuse(
            node, f"its mode is {mode!r}", "only nearest and linear without antialias are written"
        )
    source = site.image(node)
    with site.image_result(node) as (result, _):
        _resample(node, site, source, result, mode)


def _resample(node: ir.Node, site: FloatSite, source: int, result: int, mode: str) -> None:
    before, after = (site.graph.tensors[index].shape for index in (source, result))
    if before[0] != after[0] or before[3] != after[3]:
        raise read.refuse(node, "it resizes batch or channels", "resize height and width only")
    wanted = [_coordinates(node, axis, before[axis], after[axis]) for axis in (1, 2)]
    if mode == "nearest":
        _resize_nearest(node, site, source, result, [_nearest(node, row) for row in wanted])
        return
    for kind, fields in COORDINATES.items():
        found = [_linear_coordinates(kind, before[axis], after[axis]) for axis in (1, 2)]
        pairs = zip(wanted, found, (1, 2), strict=True)
        if all(_same_samples(left, right, before[axis]) for left, right, axis in pairs):
            code = "RESIZE_BILINEAR/half_pixel" if kind == "half_pixel" else "RESIZE_BILINEAR"
            sizes = site.graph.integers("size", np.array(after[1:3]))
            options = Options("ResizeBilinearOptions", fields)
            site.graph.operator(code, (source, sizes), result, options)
            return
    raise _no_such_coordinates(node)


def depth_to_space(node: ir.Node, site: FloatSite) -> None:
    """DEPTH_TO_SPACE, whose channels come as (block row, block column, channel): ONNX's DCR.

    CRD, (channel, block row, block column), is brought there by the convolution before it, or by
    a selection of channels.
    """
    name = str(node.inputs[0].name) if node.inputs[0] is not None else ""
    source = site.image(node)
    block = node.attributes.get_int("blocksize", 0)
    channels = site.graph.tensors[source].shape[3]
    mode = node.attributes.get_string("mode", "DCR")
    if mode == "CRD" and name not in site.depth_major:
        source = select(site, source, 3, depth_major(channels, block), read.label(node))
    result = site.define(node.outputs[0], NHWC)
    options = Options("DepthToSpaceOptions", {"blockSize": block})
    site.graph.operator("DEPTH_TO_SPACE", (source,), result, options)


def space_to_depth(node: ir.Node, site: FloatSite) -> None:
    """SPACE_TO_DEPTH, whose channels come as (block row, block column, channel), as ONNX's do."""
    source = site.image(node)
    result = site.define(node.outputs[0], NHWC)
    block = node.attributes.get_int("blocksize", 0)
    options = Options("SpaceToDepthOptions", {"blockSize": block})
    site.graph.operator("SPACE_TO_DEPTH", (source,), result, options)


def _coordinates(node: ir.Node, axis: int, size: int, outputs: int) -> Float32Array:
    """Where ONNX samples along an axis of [N, H, W, C], in pixels of the input, [outputs]."""
    scales = read.term(node, 1 if len(node.inputs) == 2 else 2)
    scale = outputs / size
    if scales is not None and scales.size == 4:
        scale = float(scales.reshape(-1)[axis + 1])
    elif scales is not None and scales.size == 3 and axis == ALONG:
        scale = float(scales.reshape(-1)[2])
    position = np.arange(outputs, dtype=np.float64)
    match node.attributes.get_string("coordinate_transformation_mode", "half_pixel"):
        case "half_pixel":
            found = (position + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            found = (position + 0.5) / scale - 0.5 if outputs > 1 else position * 0
        case "align_corners":
            found = position * (size - 1) / max(outputs - 1, 1)
        case "asymmetric":
            found = position / scale
        case _:
            raise _no_such_coordinates(node)
    return found.astype(np.float32)


def _linear_coordinates(kind: str, size: int, outputs: int) -> Float32Array:
    """Where RESIZE_BILINEAR samples along an axis, [outputs]."""
    position = np.arange(outputs, dtype=np.float64)
    match kind:
        case "half_pixel":
            found = (position + 0.5) * size / outputs - 0.5
        case "asymmetric":
            found = position * size / outputs
        case _:
            found = position * (size - 1) / max(outputs - 1, 1)
    return found.astype(np.float32)


def _same_samples(left: Float32Array, right: Float32Array, size: int) -> bool:
    kept, given = (np.clip(row, 0, size - 1) for row in (left, right))
    return bool(np.allclose(kept, given, rtol=0, atol=1e-5))


def _nearest(node: ir.Node, coordinates: Float32Array) -> IntArray:
    """The pixel that ONNX takes for each coordinate."""
    match node.attributes.get_string("nearest_mode", "round_prefer_floor"):
        case "floor":
            found = np.floor(coordinates + 1e-6)
        case "ceil":
            found = np.ceil(coordinates - 1e-6)
        case "round_prefer_ceil":
            found = np.floor(coordinates + 0.5)
        case _:
            found = np.ceil(coordinates - 0.5)
    return np.asarray(found, dtype=np.int64)


def _resize_nearest(
    node: ir.Node, site: FloatSite, source: int, result: int, wanted: list[IntArray]
) -> None:
    batch, height, width, channels = site.graph.tensors[source].shape
    after = site.graph.tensors[result].shape
    wanted = [np.clip(row, 0, size - 1) for row, size in zip(wanted, (height, width), strict=True)]
    times = (after[1] // height, after[2] // width)
    if all(
        np.array_equal(row, np.arange(row.size) // time)
        for row, time, size in zip(wanted, times, (height, width), strict=True)
        if row.size == time * size
    ) and (after[1], after[2]) == (height * times[0], width * times[1]):
        apart = site.reshaped(source, (batch * height, 1, width, 1, channels))
        ones = np.ones((1, times[0], 1, times[1], 1), dtype=np.float32)
        shape = (batch * height, times[0], width, times[1], channels)
        inputs = (apart, site.graph.constant(f"{read.label(node)}/ones", ones))
        repeated = site.step(
            "MUL", inputs, f"{read.label(node)}/repeated", shape, Options("MulOptions")
        )
        reshape(site.graph, repeated, result)
        return
    for kind, fields in COORDINATES.items():
        found = [
            _nearest_of_tflite(kind, size, row.size)
            for size, row in zip((height, width), wanted, strict=True)
        ]
        if all(np.array_equal(*pair) for pair in zip(wanted, found, strict=True)):
            code = "RESIZE_NEAREST_NEIGHBOR" + ("/centers" if fields else "")
            sizes = site.graph.integers("size", np.array(after[1:3]))
            options = Options("ResizeNearestNeighborOptions", fields)
            site.graph.operator(code, (source, sizes), result, options)
            return
    raise _no_such_coordinates(node)


def _nearest_of_tflite(kind: str, size: int, outputs: int) -> IntArray:
    """The pixel that RESIZE_NEAREST_NEIGHBOR takes for each output, [outputs]."""
    position = np.arange(outputs, dtype=np.float32)
    match kind:
        case "half_pixel":
            found = np.floor((position + np.float32(0.5)) * np.float32(size / outputs))
        case "asymmetric":
            found = np.floor(position * np.float32(size / outputs))
        case _:
            scale = np.float32((size - 1) / max(outputs - 1, 1))
            found = np.floor(position * scale + np.float32(0.5))
    return np.asarray(np.minimum(found, size - 1), dtype=np.int64)


def _no_such_coordinates(node: ir.Node) -> UnsupportedOperatorError:
    kept = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    return read.refuse(
        node,
        f"TFLite does not sample at its coordinates ({kept!r})",
        "use asymmetric, half_pixel or align_corners with a whole scale",
    )
