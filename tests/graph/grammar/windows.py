"""Geometry of convolutions and pools, and the pools themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.graph.grammar.growing import Growing, Step


@dataclass(frozen=True)
class Window:
    """Attributes of a node, and the spatial size that it makes."""

    attributes: dict[str, list[int]]
    size: tuple[int, int]


def window(growing: Growing, largest: int) -> Window | None:
    """A random window; None where the tensor is no image or it does not fit."""
    if not growing.is_image:
        return None
    kernel, strides, dilations, begins, ends, sizes = [], [], [], [], [], []
    for length in growing.shape[2:]:
        k = growing.count(1, largest)
        stride, dilation = growing.pick((1, 1), (1, 1), (2, 1), (1, 2))
        padded = growing.chance(0.6)
        begin, end = (growing.count(0, k - 1) if padded else 0 for _ in range(2))
        size = (length + begin + end - (k - 1) * dilation - 1) // stride + 1
        if size < 1:
            return None
        kernel.append(k)
        strides.append(stride)
        dilations.append(dilation)
        begins.append(begin)
        ends.append(end)
        sizes.append(size)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    return Window({**attributes, "pads": [*begins, *ends]}, (sizes[0], sizes[1]))


def transposed_window(growing: Growing) -> Window | None:
    """Of a transposed convolution: output = stride * (input - 1) + extra + reach - pads."""
    if not growing.is_image:
        return None
    kernel, strides, extras, begins, ends, sizes = [], [], [], [], [], []
    for length in growing.shape[2:]:
        k, stride = growing.count(1, 3), growing.count(1, 2)
        extra = growing.count(0, stride - 1)
        begin, end = (growing.count(0, k - 1) if growing.chance(0.4) else 0 for _ in range(2))
        size = stride * (length - 1) + extra + k - begin - end
        if size < 1:
            return None
        kernel.append(k)
        strides.append(stride)
        extras.append(extra)
        begins.append(begin)
        ends.append(end)
        sizes.append(size)
    attributes = {"kernel_shape": kernel, "strides": strides, "output_padding": extras}
    return Window({**attributes, "pads": [*begins, *ends]}, (sizes[0], sizes[1]))


def pool(growing: Growing) -> None:
    """Largest or mean, with padding that counts or not."""
    found = window(growing, 3)
    if found is None:
        return
    shape = (1, growing.shape[1], *found.size)
    has_holes = set(found.attributes["dilations"]) != {1}
    if has_holes and any(found.attributes["pads"]):
        return  # A window may lie wholly in the padding, where there is no largest value.
    if has_holes or growing.chance(0.5):
        growing.put("MaxPool", shape, **found.attributes)
    else:
        counted = growing.count(0, 1)
        growing.put("AveragePool", shape, count_include_pad=counted, **found.attributes)


def global_pool(growing: Growing) -> None:
    """Mean or maximum of the whole map."""
    if growing.is_image and int(np.prod(growing.shape[2:])) > 1:
        kind = growing.pick("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool")
        growing.put(kind, (*growing.shape[:2], 1, 1))


STEPS: dict[str, Step] = {"pool": pool, "global_pool": global_pool}
