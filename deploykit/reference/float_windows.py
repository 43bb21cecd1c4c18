"""Convolutions and pools of the float evaluator, over any number of spatial axes.

Source: ONNX operator specification, Conv, ConvTranspose, MaxPool, AveragePool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from deploykit.reference.convolve import convolve, convolve_transposed
from deploykit.reference.float_node import FloatNode, Inputs, Rule, given, optional
from deploykit.reference.sliding import Sliding
from deploykit.reference.window import output_length
from deploykit.spec.arrays import AnyArray


def conv(node: FloatNode, inputs: Inputs) -> AnyArray:
    """y = sum x * w + b."""
    images, weight = given(node, inputs, 0), given(node, inputs, 1)
    groups = node.integer("group", 1)
    if images.shape[1] != weight.shape[1] * groups or len(weight) % groups:
        raise ValueError(f"{groups} groups of weights {list(weight.shape)}")
    sliding, _ = sliding_of(node, images.shape[2:], weight.shape[2:])
    return _plus(convolve(images, weight, sliding, groups), optional(inputs, 2))


def conv_transpose(node: FloatNode, inputs: Inputs) -> AnyArray:
    """The adjoint of a convolution's sums: y[s * i + d * k - begin] += x[i] * w[k], plus b."""
    images, weight = given(node, inputs, 0), given(node, inputs, 1)
    groups = node.integer("group", 1)
    if images.shape[1] != len(weight) or len(weight) % groups:
        raise ValueError(f"{groups} groups of weights {list(weight.shape)}")
    sliding, sizes = _transposed(node, images.shape[2:], weight.shape[2:])
    return _plus(convolve_transposed(images, weight, sliding, groups, sizes), optional(inputs, 2))


def max_pool(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Largest value under the window; padded positions never win."""
    images = given(node, inputs, 0)
    sliding, overhang = sliding_of(node, images.shape[2:], None)
    lowest = -np.inf if images.dtype.kind == "f" else np.iinfo(images.dtype).min
    return _pooled(images, _extended(sliding, overhang), lowest, np.maximum)


def average_pool(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Mean under the window, over the real positions, or the padded ones too where asked."""
    images = given(node, inputs, 0)
    sliding, overhang = sliding_of(node, images.shape[2:], None)
    total = _pooled(images, _extended(sliding, overhang), 0.0, np.add)
    ones = np.ones(images.shape[2:], dtype=images.dtype)
    counted = sliding.pad(ones, float(node.integer("count_include_pad", 0) == 1))
    unpadded = replace(sliding, begins=(0,) * ones.ndim, ends=overhang)
    total /= _pooled(counted, unpadded, 0.0, np.add)
    return total


def global_pool(function: Callable[[AnyArray, tuple[int, ...]], AnyArray]) -> Rule:
    """All spatial axes [N, C, ...] -> [N, C, 1, ...]."""

    def rule(node: FloatNode, inputs: Inputs) -> AnyArray:
        values = given(node, inputs, 0)
        pooled = function(values, tuple(range(2, values.ndim)))
        return np.asarray(pooled).reshape(*values.shape[:2], *(1,) * (values.ndim - 2))

    return rule


def sliding_of(
    node: FloatNode, lengths: tuple[int, ...], kernel: tuple[int, ...] | None
) -> tuple[Sliding, tuple[int, ...]]:
    """The window over axes of these lengths, and by how much ceil_mode reaches beyond each."""
    sliding = _written(node, lengths, kernel)
    begins, ends = list(sliding.begins), list(sliding.ends)
    overhang = [0] * len(lengths)
    auto_pad = node.text("auto_pad", "NOTSET")
    for axis, (length, stride, reach) in enumerate(
        zip(lengths, sliding.strides, sliding.reach, strict=True)
    ):
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, (-(-length // stride) - 1) * stride + reach - length)
            begins[axis] = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            ends[axis] = total - begins[axis]
        elif node.integer("ceil_mode", 0):
            padded = length + begins[axis] + ends[axis]
            steps = -(-(padded - reach) // stride)
            # A window that would start beyond the image and its leading pads is left out.
            steps -= steps * stride >= length + begins[axis]
            overhang[axis] = max(0, steps * stride + reach - padded)
    return replace(sliding, begins=tuple(begins), ends=tuple(ends)), tuple(overhang)


def _written(node: FloatNode, lengths: tuple[int, ...], kernel: tuple[int, ...] | None) -> Sliding:
    """The window as the attributes state it, pads none where auto_pad decides them."""
    rank = len(lengths)
    sizes = node.integers("kernel_shape", kernel)
    if sizes is None:
        raise node.refuse("it has no kernel_shape")
    auto_pad = node.text("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"its auto_pad is {auto_pad!r}")
    pads = node.integers("pads") if auto_pad == "NOTSET" else None
    pads = pads or (0,) * (2 * rank)
    sliding = Sliding(
        sizes,
        node.integers("strides") or (1,) * rank,
        node.integers("dilations") or (1,) * rank,
        pads[:rank],
        pads[rank:],
    )
    if {len(sliding.kernel), len(sliding.strides), len(sliding.ends)} != {rank}:
        raise ValueError(f"{rank} spatial axes and {sliding}")
    return sliding


def _transposed(
    node: FloatNode, lengths: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[Sliding, tuple[int, ...]]:
    """The window of a ConvTranspose and its output's spatial shape.

    full = stride * (length - 1) + reach + output_padding; the output is full less the pads. A
    written output_shape, or length * stride with auto_pad SAME, decides the pads instead.
    """
    sliding = _written(node, lengths, kernel)
    extra = node.integers("output_padding") or (0,) * len(lengths)
    full = [
        stride * (length - 1) + reach + more
        for stride, length, reach, more in zip(
            sliding.strides, lengths, sliding.reach, extra, strict=True
        )
    ]
    auto_pad = node.text("auto_pad", "NOTSET")
    wanted = node.integers("output_shape")
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * stride for n, stride in zip(lengths, sliding.strides, strict=True))
    if wanted is None:
        pads = zip(sliding.begins, sliding.ends, strict=True)
        return sliding, tuple(n - sum(both) for n, both in zip(full, pads, strict=True))
    sizes = wanted[-len(lengths) :]
    totals = [max(0, n - size) for n, size in zip(full, sizes, strict=True)]
    begins = tuple(n // 2 if auto_pad == "SAME_UPPER" else n - n // 2 for n in totals)
    return replace(sliding, begins=begins), sizes


def _pooled(
    images: AnyArray, sliding: Sliding, fill: float, combine: Callable[..., AnyArray]
) -> AnyArray:
    """Values under the window combined axis by axis, which costs the sum of the kernel's sizes."""
    result = sliding.pad(images, fill)
    first = images.ndim - len(sliding.kernel)
    for axis, (size, stride, dilation) in enumerate(
        zip(sliding.kernel, sliding.strides, sliding.dilations, strict=True), start=first
    ):
        steps = output_length(result.shape[axis], size, stride, 0, dilation)
        tap = [
            result[
                (slice(None),) * axis
                + (slice(at * dilation, at * dilation + (steps - 1) * stride + 1, stride),)
            ]
            for at in range(size)
        ]
        result = tap[0].copy()
        for seen in tap[1:]:
            combine(result, seen, out=result)
    return result


def _extended(sliding: Sliding, overhang: tuple[int, ...]) -> Sliding:
    ends = zip(sliding.ends, overhang, strict=True)
    return replace(sliding, ends=tuple(end + more for end, more in ends))


def _plus(sums: AnyArray, bias: AnyArray | None) -> AnyArray:
    if bias is not None:
        sums += bias.reshape(-1, *(1,) * (sums.ndim - 2))
    return sums
