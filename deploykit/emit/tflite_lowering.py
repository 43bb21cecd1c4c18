"""Operators that int8 and float32 files write alike.

Everything here takes indices of the graph's tensors, in the file's NHWC shapes, and gives helper
tensors the element type and quantization of the tensor that they are made from. `name` is the
network's name of the result; helper tensors are named after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from deploykit.emit.tflite_graph import Activation, Options, TfliteGraph
from deploykit.emit.tflite_padding import Padding, padding_form
from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Window


@dataclass(frozen=True)
class ConvolutionForm:
    """code, options: of the operator. output_axis: where O lies in the kernel.

    kernel: OHWI with I = channels / groups, or 1HWO where it is depthwise.
    """

    code: str
    options: Options
    kernel: AnyArray
    output_axis: int


def convolution_form(
    kernel: AnyArray, window: Window, groups: int, channels: int, padding: Padding
) -> ConvolutionForm:
    """CONV_2D, or DEPTHWISE_CONV_2D where groups = channels. kernel: [O, I/groups, kh, kw]."""
    fields: dict[str, int | float | bool | tuple[int, ...]] = {
        "padding": padding.value,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
    }
    if groups == channels > 1:
        fields["depthMultiplier"] = kernel.shape[0] // channels
        options = Options("DepthwiseConv2DOptions", fields)
        kernel_1hwo = np.ascontiguousarray(kernel.transpose(1, 2, 3, 0))
        return ConvolutionForm("DEPTHWISE_CONV_2D", options, kernel_1hwo, 3)
    code = "CONV_2D" if groups == 1 else "CONV_2D/grouped"
    kernel_ohwi = np.ascontiguousarray(kernel.transpose(0, 2, 3, 1))
    return ConvolutionForm(code, Options("Conv2DOptions", fields), kernel_ohwi, 0)


def columns_as_hwc(weight: AnyArray, unflattened: tuple[int, int, int]) -> AnyArray:
    """Columns of [O, C*H*W] in the order of H, W, C. unflattened: (C, H, W)."""
    blocks = weight.reshape(-1, *unflattened)
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1).reshape(weight.shape))


def pool(
    graph: TfliteGraph,
    code: str,
    source: int,
    result: int,
    window: Window,
    padding: Padding,
    activation: Activation = Activation.NONE,
) -> None:
    """MAX_POOL_2D or AVERAGE_POOL_2D."""
    fields: dict[str, int | float | bool | tuple[int, ...]] = {
        "padding": padding.value,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "filterHeight": window.kernel[0],
        "filterWidth": window.kernel[1],
    }
    graph.operator(code, (source,), result, Options("Pool2DOptions", fields).fusing(activation))


def require_dense(window: Window, name: str) -> None:
    """Refuse a pooling window with holes. name: the pooling operator's."""
    if window.dilations != (1, 1):
        raise UnsupportedOperatorError(
            f"{name}: TFLite has no max pooling with dilations {window.dilations}; "
            "use a dense window, or leave TFLite out of the targets."
        )


def padded(
    graph: TfliteGraph,
    source: int,
    result: int,
    window: Window,
    name: str,
    fill: float | None = None,
) -> tuple[int, Padding]:
    """The tensor that a window reads and its padding, after a PAD where one is needed.

    fill: what padded positions hold, in the source's own element type; None for the number that
    stands for zero.
    """
    batch, height, width, channels = graph.tensors[source].shape
    _, rows, columns, _ = graph.tensors[result].shape
    form = padding_form(window, (height, width), (rows, columns))
    if form.before is None:
        return source, form.padding
    top, left, bottom, right = form.before
    shape = (batch, height + top + bottom, width + left + right, channels)
    helper = graph.like(source, f"{name}/pad", shape)
    widths = graph.integers("pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    if fill is None:
        graph.operator("PAD", (source, widths), helper, Options("PadOptions"))
    else:
        value = graph.scalar_like(source, f"{name}/pad/fill", fill)
        graph.operator("PADV2", (source, widths, value), helper, Options("PadV2Options"))
    return helper, form.padding


def pad_with(
    graph: TfliteGraph,
    source: int,
    result: int,
    pads: tuple[int, int, int, int],
    fill: float | None,
    name: str,
) -> None:
    """PADV2 of H and W, PAD where `fill` is None. pads: top, left, bottom, right.

    fill: in the source's element type; None for the number that stands for zero.
    """
    top, left, bottom, right = pads
    widths = graph.integers("pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    if fill is None:
        graph.operator("PAD", (source, widths), result, Options("PadOptions"))
        return
    value = graph.scalar_like(source, f"{name}/fill", fill)
    graph.operator("PADV2", (source, widths, value), result, Options("PadV2Options"))


def mean_over_pixels(graph: TfliteGraph, source: int, result: int) -> None:
    """[N, H, W, C] -> [N, 1, 1, C]."""
    axes = graph.integers("height_and_width", np.array([1, 2]))
    graph.operator("MEAN", (source, axes), result, Options("ReducerOptions", {"keepDims": True}))


def transpose(graph: TfliteGraph, source: int, result: int, axes: tuple[int, ...]) -> None:
    """result.shape[i] = source.shape[axes[i]]."""
    permutation = graph.integers("nchw_to_nhwc" if axes[1] == 2 else "nhwc_to_nchw", np.array(axes))
    graph.operator("TRANSPOSE", (source, permutation), result, Options("TransposeOptions"))


def channel_major(graph: TfliteGraph, source: int, name: str) -> int:
    """A tensor whose elements come in the order C, H, W; the source itself where that is so."""
    shape = graph.tensors[source].shape
    if len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1:
        return source
    batch, height, width, channels = shape
    turned = graph.like(source, f"{name}/nchw", (batch, channels, height, width))
    transpose(graph, source, turned, (0, 3, 1, 2))
    return turned


def reshape(graph: TfliteGraph, source: int, result: int) -> None:
    """The same elements in the shape of the result."""
    shape = graph.tensors[result].shape
    assert prod(shape) == prod(graph.tensors[source].shape)
    stated = graph.any_batch(shape)
    options = Options("ReshapeOptions", {"newShape": stated})
    graph.operator("RESHAPE", (source, graph.integers("shape", np.array(stated))), result, options)


def reshape_channel_major(graph: TfliteGraph, source: int, result: int, name: str) -> None:
    """RESHAPE whose elements keep the order C, H, W; images are NHWC before and behind it."""
    data, shape = channel_major(graph, source, name), graph.tensors[result].shape
    if len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1:
        reshape(graph, data, result)
        return
    batch, height, width, channels = shape
    turned = graph.like(result, f"{name}/reshaped", (batch, channels, height, width))
    reshape(graph, data, turned)
    transpose(graph, turned, result, (0, 2, 3, 1))


def limit(
    graph: TfliteGraph, source: int, result: int, name: str, steps: Sequence[tuple[str, float]]
) -> None:
    """MAXIMUM and MINIMUM with constants, one after another. steps: (code, bound), not empty."""
    for position, (code, bound) in enumerate(steps):
        into = result
        if position + 1 < len(steps):
            into = graph.like(source, f"{name}/{code.lower()}", graph.tensors[source].shape)
        value = graph.scalar_like(source, f"{name}/{code.lower()}/bound", bound)
        graph.operator(code, (source, value), into, Options("MaximumMinimumOptions"))
        source = into
