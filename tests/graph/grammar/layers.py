"""Weighted sums: convolutions of every grouping, transposed ones, linears, residual blocks."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Float64Array
from tests.graph.grammar.elementwise import activation
from tests.graph.grammar.growing import Growing, Step
from tests.graph.grammar.windows import transposed_window, window


def conv(growing: Growing) -> None:
    """A convolution with random geometry."""
    _conv(growing, 1, growing.count(1, 6))


def grouped(growing: Growing) -> None:
    """Any number of groups, one output channel or several per group."""
    if growing.is_image:
        groups = growing.divisor(growing.shape[1])
        _conv(growing, groups, groups * growing.count(1, 3))


def depthwise(growing: Growing) -> None:
    """One kernel per channel."""
    if growing.is_image:
        _conv(growing, growing.shape[1], growing.shape[1])


def _conv(growing: Growing, groups: int, outputs: int) -> None:
    found = window(growing, 3)
    if found is None or not growing.fits((outputs, *found.size)):
        return
    per = growing.shape[1] // groups
    kernel = growing.kernels(outputs, per, *found.attributes["kernel_shape"])
    bias = growing.biases(outputs)
    growing.put("Conv", (1, outputs, *found.size), kernel, bias, group=groups, **found.attributes)


def transposed(growing: Growing) -> None:
    """A transposed convolution with any number of groups, each with any number of outputs."""
    found = transposed_window(growing)
    if found is None:
        return
    inputs = growing.shape[1]
    groups = growing.divisor(inputs) if growing.chance(0.5) else 1
    per = growing.count(1, 4 if groups == 1 else 2)
    if not growing.fits((groups * per, *found.size)):
        return
    kernel = growing.kernels(inputs, per, *found.attributes["kernel_shape"])
    kernel[:, growing.rng.random(per) < 0.3] = 0.0
    bias = growing.biases(groups * per)
    shape = (1, groups * per, *found.size)
    growing.put("ConvTranspose", shape, kernel, bias, group=groups, **found.attributes)


def linear(growing: Growing) -> None:
    """Gemm on a vector; MatMul along the last axis of anything else, perhaps with a bias."""
    inputs, outputs = growing.shape[-1], growing.count(1, 6)
    if not growing.fits((*growing.shape[:-1], outputs)):
        return
    kernel = growing.kernels(outputs, inputs)
    if len(growing.shape) == 2:
        growing.put("Gemm", (1, outputs), kernel, growing.biases(outputs), transB=1)
        return
    matmul(growing, kernel, growing.biases(outputs) if growing.chance(0.6) else None)


def matmul(growing: Growing, kernel: Float64Array, bias: Float64Array | None) -> None:
    """x W' + b along the last axis, kernel [O, I]."""
    shape = (*growing.shape[:-1], len(kernel))
    product = growing.put("MatMul", shape, np.ascontiguousarray(kernel.T))
    if bias is not None:
        growing.read("Add", shape, [product, bias] if growing.chance(0.7) else [bias, product])


def block(growing: Growing) -> None:
    """x + conv(relu(conv(x))), as residual networks have it, with a padded 3 x 3 kernel."""
    if not growing.is_image:
        return
    start, count = growing.last, growing.shape[1]
    inner = growing.count(1, 4)
    for outputs in (inner, count):
        kernel = growing.kernels(outputs, growing.shape[1], 3, 3)
        shape = (1, outputs, *growing.shape[2:])
        growing.put("Conv", shape, kernel, growing.biases(outputs), pads=[1] * 4)
        if outputs is inner:
            activation(growing)
    growing.join("Add", growing.shape, [growing.last, start])


def bottleneck(growing: Growing) -> None:
    """x + conv1x1(depthwise3x3(conv1x1(x))), as mobile networks have it."""
    if not growing.is_image:
        return
    start, count, inner = growing.last, growing.shape[1], growing.count(2, 6)
    plan = ((inner, 1, 1), (inner, 3, inner), (count, 1, 1))
    for index, (outputs, size, groups) in enumerate(plan):
        kernel = growing.kernels(outputs, growing.shape[1] // groups, size, size)
        shape, pads = (1, outputs, *growing.shape[2:]), [size // 2] * 4
        growing.put("Conv", shape, kernel, growing.biases(outputs), pads=pads, group=groups)
        if index < 2:
            activation(growing)
    growing.join("Add", growing.shape, [growing.last, start])


STEPS: dict[str, Step] = {
    "conv": conv,
    "grouped": grouped,
    "depthwise": depthwise,
    "transposed": transposed,
    "linear": linear,
    "block": block,
    "bottleneck": bottleneck,
}
