"""Exact integer sums of products through floating-point BLAS.

A float32 matrix product is exact, in whatever order it adds, while every partial sum stays below
2**24; a float64 one below 2**53. Which one serves is decided from sum |w| * max |x - zx|. Where
float32 serves for a half of the channels each, it is taken for both, at twice the speed of float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.reference.convolve import convolve
from deploykit.reference.sliding import Sliding
from deploykit.spec.arrays import FloatArray, Int8Array, Int32Array
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.parallel import in_parallel
from deploykit.spec.quantized import Quantization, int_range

MOST_PARTS = 4
"""Beyond, one product in float64 is as fast as that many in float32."""

WEIGHTS_AT_ONCE = 1 << 21
"""Weights of a linear that are held in the float type: 16 MiB in float64."""


def accumulate_linear(operator: Linear, inputs: Int8Array, source: Quantization) -> FloatArray:
    """sum (x - zx) * w + bias as whole numbers [N, O], in a float type that holds them exactly.

    A bounded number of outputs at a time: the weights may be most of a network.
    """
    weight = operator.weight.values
    dtype = _exact_dtype(weight, operator.bias, source)
    centred = _centred(inputs, source, dtype)
    sums: FloatArray = np.empty((len(inputs), len(weight)), dtype)

    def accumulate(rows: slice) -> None:
        np.matmul(centred, weight[rows].astype(dtype).T, out=sums[:, rows])
        sums[:, rows] += operator.bias[rows].astype(dtype)

    at_once = max(1, WEIGHTS_AT_ONCE // max(1, weight.shape[1]))
    starts = range(0, len(weight), at_once)
    in_parallel(accumulate, [slice(start, start + at_once) for start in starts])
    return _within_int32(sums, operator.name)


def convolution_sums(operator: Conv, source: Quantization) -> Callable[[Int8Array], FloatArray]:
    """What gives sum (x - zx) * w + bias as whole numbers [N, O, H', W'] for x [N, C, H, W].

    In a float type that is exact, which the weights decide once. Padded positions hold zx, so they
    are zero once centred.
    """
    exact = _exact_convolution(operator, source)
    weight = operator.weight.values.astype(exact.products)
    bias = operator.bias.astype(exact.sums)[:, None, None]
    sliding = Sliding.over_images(operator.window)

    def accumulate(inputs: Int8Array) -> FloatArray:
        images = _centred(inputs, source, exact.products)
        sums = bias
        for part in exact.parts:
            found = convolve(images[:, part], weight[:, part], sliding, operator.groups)
            sums = np.add(found, sums, dtype=exact.sums, out=found if exact.in_place else None)
        return _within_int32(sums, operator.name)

    return accumulate


@dataclass(frozen=True)
class _Exact:
    """Runs of input channels, multiplied and added up in float types that are exact for them."""

    parts: tuple[slice, ...]
    products: type[np.floating[Any]]
    sums: type[np.floating[Any]]

    @property
    def in_place(self) -> bool:
        """Whether the products' array can hold the sums."""
        return self.products is self.sums


def _exact_convolution(operator: Conv, source: Quantization) -> _Exact:
    """Decided by the weights: float32 whole, else in few parts, else float64."""
    weight, none = operator.weight.values, np.zeros(len(operator.weight.values), np.int32)
    whole = (slice(None),)
    if _exact_dtype(weight, operator.bias, source) is np.float32:
        return _Exact(whole, np.float32, np.float32)
    channels = weight.shape[1]
    for count in range(2, MOST_PARTS + 1):
        ends = np.linspace(0, channels, count + 1).astype(int)
        parts = tuple(slice(start, stop) for start, stop in pairwise(ends.tolist()))
        exact = all(_exact_dtype(weight[:, part], none, source) is np.float32 for part in parts)
        if operator.groups == 1 and count <= channels and exact:
            return _Exact(parts, np.float32, np.float64)
    return _Exact(whole, np.float64, np.float64)


def _centred(values: Int8Array, source: Quantization, dtype: type[np.floating[Any]]) -> FloatArray:
    """x - zx in the given float type."""
    centred: FloatArray = values.astype(dtype)
    centred -= source.zero_point
    return centred


def _exact_dtype(
    weight: Int8Array, bias: Int32Array, source: Quantization
) -> type[np.floating[Any]]:
    """float32 where no partial sum can reach 2**24, else float64."""
    low, high = int_range(source.bits)
    reach = max(source.zero_point - low, high - source.zero_point)
    rows = weight.reshape(weight.shape[0], -1)
    # |-128| is -128 in int8, and 128 read as uint8; a wider copy of all weights would be large.
    magnitudes = np.abs(rows).view(np.uint8)
    per_output = magnitudes.sum(axis=1, dtype=np.int64) * reach
    bound = int((per_output + np.abs(bias.astype(np.int64))).max(initial=0))
    return np.float32 if bound < 1 << 24 else np.float64


def _within_int32(sums: FloatArray, name: str) -> FloatArray:
    """The sums, refused where a runtime's int32 accumulator would wrap."""
    if sums.dtype == np.float64 and sums.size and np.abs(sums).max() >= 2.0**31:
        raise QuantizationError(
            f"{name}: an accumulator leaves int32, where runtimes wrap around; "
            "use a larger weight scale for this layer, so that its bias has fewer steps."
        )
    return sums
