"""Convolutions and pools of the float evaluator, over one or two spatial axes.

Source: ONNX operator specification, Conv, MaxPool, AveragePool. A [N, C, L] input is evaluated as
[N, C, 1, L].
"""

from __future__ import annotations

import numpy as np

from deploykit.reference.convolve import convolve
from deploykit.reference.float_node import FloatNode, Inputs, given, optional
from deploykit.reference.window import taps
from deploykit.spec.arrays import AnyArray
from deploykit.spec.quantized import Window


def conv(node: FloatNode, inputs: Inputs) -> AnyArray:
    """y = sum x * w + b."""
    images, weight, bias = given(node, inputs, 0), given(node, inputs, 1), optional(inputs, 2)
    flat, kernels = images_of(node, images), images_of(node, weight)
    window, _ = window_of(node, flat.shape, kernels.shape[2:])
    result = convolve(flat, kernels, window, node.integer("group", 1))
    if bias is not None:
        result += bias[:, None, None]
    return _restored(result, images)


def max_pool(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Largest value under the window; padded positions never win."""
    if len(node.node.outputs) > 1:
        raise node.refuse("it returns indices too")
    images = given(node, inputs, 0)
    flat = images_of(node, images)
    window, overhang = window_of(node, flat.shape, None)
    seen = [values for _, values in taps(flat, _extended(window, overhang), -np.inf)]
    return _restored(np.maximum.reduce(seen), images)


def average_pool(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Mean under the window, over the real positions, or the padded ones too where asked."""
    images = given(node, inputs, 0)
    flat = images_of(node, images)
    window, overhang = window_of(node, flat.shape, None)
    include_pad = node.integer("count_include_pad", 0) == 1
    top, left, bottom, right = window.pads
    ones = np.ones((1, 1, *flat.shape[2:]), dtype=flat.dtype)
    counted = np.pad(
        ones, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=float(include_pad)
    )
    unpadded = Window(window.kernel, window.strides, (0, 0, *overhang), window.dilations)
    count = sum(values for _, values in taps(counted, unpadded, 0.0))
    total = sum(values for _, values in taps(flat, _extended(window, overhang), 0.0))
    return _restored(np.asarray(total / count), images)


def images_of(node: FloatNode, values: AnyArray) -> AnyArray:
    """[N, C, L] as [N, C, 1, L]; [N, C, H, W] as it is."""
    if values.ndim == 3:
        return values[:, :, None, :]
    if values.ndim != 4:
        raise node.refuse(f"it has {values.ndim - 2} spatial axes")
    return values


def window_of(
    node: FloatNode, shape: tuple[int, ...], kernel: tuple[int, ...] | None
) -> tuple[Window, tuple[int, int]]:
    """The window over [N, C, H, W], and the rows and columns by which ceil_mode reaches beyond."""
    sizes = node.integers("kernel_shape", kernel)
    if sizes is None:
        raise node.refuse("it has no kernel_shape")
    kernel_h, kernel_w = _pair(sizes, 1)
    strides = _pair(node.integers("strides") or (1, 1), 1)
    dilations = _pair(node.integers("dilations") or (1, 1), 1)
    auto_pad = node.text("auto_pad", "NOTSET")
    begins, ends, overhang = [0, 0], [0, 0], [0, 0]
    written = node.integers("pads") or (0, 0, 0, 0)
    half = len(written) // 2
    begins = list(_pair(written[:half], 0))
    ends = list(_pair(written[half:], 0))
    for axis, size in enumerate((kernel_h, kernel_w)):
        reach = dilations[axis] * (size - 1) + 1
        length, stride = shape[2 + axis], strides[axis]
        if auto_pad == "VALID":
            begins[axis] = ends[axis] = 0
        elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, (-(-length // stride) - 1) * stride + reach - length)
            lower = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            begins[axis], ends[axis] = lower, total - lower
        elif node.integer("ceil_mode", 0):
            padded = length + begins[axis] + ends[axis]
            steps = -(-(padded - reach) // stride)
            # A window that would start beyond the image and its leading pads is left out.
            steps -= steps * stride >= length + begins[axis]
            overhang[axis] = max(0, steps * stride + reach - padded)
    pads = (begins[0], begins[1], ends[0], ends[1])
    window = Window((kernel_h, kernel_w), strides, pads, dilations)
    return window, (overhang[0], overhang[1])


def _extended(window: Window, overhang: tuple[int, int]) -> Window:
    top, left, bottom, right = window.pads
    pads = (top, left, bottom + overhang[0], right + overhang[1])
    return Window(window.kernel, window.strides, pads, window.dilations)


def _pair(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Values over (H, W); one value is for W."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _restored(result: AnyArray, like: AnyArray) -> AnyArray:
    return result[:, :, 0, :] if like.ndim == 3 else result
