"""Float TFLite forms of convolutions and pools.

All of them read and give [N, H, W, C]. A Conv or pool over one axis runs with H = 1.
"""

from __future__ import annotations

from math import inf

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_channels import cut, depth_major
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Activation, Options
from deploykit.emit.tflite_lowering import convolution_form, padded, pool
from deploykit.emit.tflite_padding import Padding
from deploykit.spec.arrays import Float32Array, IntArray
from deploykit.spec.operators import Window


def conv(node: ir.Node, site: FloatSite) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where groups = channels.

    Channels that only a DepthToSpace in the order CRD reads are written in DEPTH_TO_SPACE's.
    """
    weight = read.kernel(node)
    bias = read.bias(node, weight.shape[0])
    window = read.window(node, weight.shape[2:])
    source = site.image(node)
    channels = site.graph.tensors[source].shape[3]
    groups = node.attributes.get_int("group", 1)
    with site.image_result(node) as (result, activation):
        rows = _depth_major_rows(node, site) if groups == 1 else None
        if rows is not None:
            weight, bias = weight[rows], bias[rows]
        data, padding = padded(site.graph, source, result, window, read.label(node))
        form = convolution_form(weight, window, groups, channels, padding)
        inputs = (
            data,
            site.graph.constant(f"{read.label(node)}/weight", form.kernel),
            site.graph.constant(f"{read.label(node)}/bias", bias),
        )
        site.graph.operator(form.code, inputs, result, form.options.fusing(activation))


def conv_transpose(node: ir.Node, site: FloatSite) -> None:
    """TRANSPOSE_CONV, weight_ohwi; the whole of it, VALID, is cut by a SLICE where SAME differs.

    out = (in - 1) * stride + kernel - pads + output_padding   along each axis
    SAME cuts total = kernel - stride, total // 2 of it in front, and gives out = in * stride.
    """
    weight = read.kernel(node)
    name = read.label(node)
    if node.attributes.get_int("group", 1) != 1:
        raise read.refuse(node, "TFLite has no transposed convolution by groups", "use one group")
    window = read.window(node, weight.shape[2:])
    if window.dilations != (1, 1):
        raise read.refuse(node, "its kernel has holes", "use a dense kernel")
    inputs = (
        site.graph.constant(f"{name}/weight", np.ascontiguousarray(weight.transpose(1, 2, 3, 0))),
        site.image(node),
        site.graph.constant(f"{name}/bias", read.bias(node, weight.shape[1])),
    )
    batch, height, width, _ = site.graph.tensors[inputs[1]].shape
    with site.image_result(node) as (result, _):
        shape = site.graph.tensors[result].shape
        sizes = zip((height, width), window.strides, window.kernel, strict=True)
        whole = tuple((size - 1) * stride + kernel for size, stride, kernel in sizes)
        front = window.pads[:2]
        if any(front[axis] + shape[1 + axis] > whole[axis] for axis in (0, 1)):
            raise read.refuse(
                node,
                "its output_padding goes beyond its pads",
                "use an output_padding that is at most the pads at the end",
            )
        same = all(
            shape[1 + axis] == size * window.strides[axis]
            and window.kernel[axis] >= window.strides[axis]
            and front[axis] == (window.kernel[axis] - window.strides[axis]) // 2
            for axis, size in enumerate((height, width))
        )
        fits = same or whole == shape[1:3]
        full = (batch, *whole, shape[3])
        into = result if fits else site.graph.like(result, f"{name}/whole", full)
        size = site.graph.integers("shape", np.array(site.graph.tensors[into].shape))
        fields = {
            "padding": (Padding.SAME if same else Padding.VALID).value,
            "strideH": window.strides[0],
            "strideW": window.strides[1],
        }
        options = Options("TransposeConvOptions", fields)
        site.graph.operator("TRANSPOSE_CONV", (size, *inputs), into, options)
        if not fits:
            cut(site, into, result, (0, *front, 0))


def max_pool(node: ir.Node, site: FloatSite) -> None:
    """MAX_POOL_2D. Padded positions never win: SAME does not count them, and a PAD's zeros lose
    where the input or the result has no value below zero.

    Elsewhere they hold -inf, by a PADV2, which XNNPACK does not take.
    """
    if len(node.outputs) > 1:
        raise read.refuse(node, "it also gives indices", "use the pool's first output alone")
    window = read.pool_window(node)
    source = site.image(node)
    with site.image_result(node) as (result, activation):
        zero_loses = read.is_never_negative(node.inputs[0]) or activation in {
            Activation.RELU,
            Activation.RELU6,
        }
        fill = None if zero_loses else -inf
        data, padding = padded(site.graph, source, result, window, read.label(node), fill)
        pool(site.graph, "MAX_POOL_2D", data, result, window, padding, activation)


def average_pool(node: ir.Node, site: FloatSite) -> None:
    """AVERAGE_POOL_2D, SAME where pads are not counted; else over a PAD's zeros, which count.

    Where a window counts n of its kh * kw positions otherwise, a MUL by kh * kw / n follows.
    """
    window = read.pool_window(node)
    name = read.label(node)
    source = site.image(node)
    counted = node.attributes.get_int("count_include_pad", 0) == 1
    with site.image_result(node) as (result, activation):
        data, padding = padded(site.graph, source, result, window, name)
        if padding is Padding.SAME and counted:
            data, padding = _zero_padded(site, source, result, window, name), Padding.VALID
        factor = _count_correction(site, source, result, window, padding, counted)
        if factor is None:
            pool(site.graph, "AVERAGE_POOL_2D", data, result, window, padding, activation)
            return
        plain = site.graph.like(result, f"{name}/plain", site.graph.tensors[result].shape)
        pool(site.graph, "AVERAGE_POOL_2D", data, plain, window, padding)
        inputs = (plain, site.graph.constant(f"{name}/count", factor))
        site.graph.operator("MUL", inputs, result, Options("MulOptions").fusing(activation))


def _depth_major_rows(node: ir.Node, site: FloatSite) -> IntArray | None:
    fused = read.fused_activation(node)
    value = (node if fused is None else fused[0]).outputs[0]
    reader = read.only_reader(value)
    if reader is None or reader.op_type != "DepthToSpace":
        return None
    if reader.attributes.get_string("mode", "DCR") != "CRD":
        return None
    site.depth_major.add(str(value.name))
    return depth_major(read.value_shape(value)[1], reader.attributes.get_int("blocksize", 0))


def _zero_padded(site: FloatSite, source: int, result: int, window: Window, name: str) -> int:
    """A PAD as far as the windows reach, where `padded` would leave the pads to SAME."""
    batch, height, width, channels = site.graph.tensors[source].shape
    _, rows, columns, _ = site.graph.tensors[result].shape
    top, left = window.pads[:2]
    bottom = max((rows - 1) * window.strides[0] + window.kernel[0] - height - top, 0)
    right = max((columns - 1) * window.strides[1] + window.kernel[1] - width - left, 0)
    widths = site.graph.integers("pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    shape = (batch, height + top + bottom, width + left + right, channels)
    return site.step("PAD", (source, widths), f"{name}/pad", shape, Options("PadOptions"))


def _count_correction(
    site: FloatSite, source: int, result: int, window: Window, padding: Padding, counted: bool
) -> Float32Array | None:
    """[1, H, W, 1]: what TFLite divides by over what ONNX divides by; None where they agree."""
    before, after = site.graph.tensors[source].shape, site.graph.tensors[result].shape
    if padding is Padding.SAME:
        return None
    rows, columns = (
        _positions(before[1 + axis], after[1 + axis], window, axis, counted) for axis in (0, 1)
    )
    area = window.kernel[0] * window.kernel[1]
    factor = np.float32(area) / np.outer(rows, columns).astype(np.float32)
    return None if np.all(factor == 1) else factor[None, :, :, None]


def _positions(size: int, outputs: int, window: Window, axis: int, counted: bool) -> IntArray:
    """How many positions of each window along an axis ONNX counts, [outputs]."""
    front, back = window.pads[axis], window.pads[axis + 2]
    first, last = (-front, size + back) if counted else (0, size)
    begin = np.arange(outputs) * window.strides[axis] - front
    end = begin + window.kernel[axis]
    return np.minimum(end, last) - np.maximum(begin, first)
