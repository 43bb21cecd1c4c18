"""Exact integer sums of products through floating-point BLAS.

A float32 matrix product is exact, in whatever order it adds, while every partial sum stays below
2**24; a float64 one below 2**53. Which one serves is decided from sum |w| * max |x - zx|.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.reference.convolve import convolve
from deploykit.reference.sliding import Sliding
from deploykit.spec.arrays import FloatArray, Int8Array, Int32Array
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.quantized import Quantization, int_range


def accumulate_linear(operator: Linear, inputs: Int8Array, source: Quantization) -> FloatArray:
    """sum (x - zx) * w + bias as whole numbers [N, O], in a float type that holds them exactly."""
    weight = operator.weight.values
    dtype = _exact_dtype(weight, operator.bias, source)
    sums: FloatArray = np.matmul(_centred(inputs, source, dtype), weight.astype(dtype).T)
    sums += operator.bias.astype(dtype)
    return _within_int32(sums, operator.name)


def accumulate_conv(operator: Conv, inputs: Int8Array, source: Quantization) -> FloatArray:
    """sum (x - zx) * w + bias as whole numbers [N, O, H', W'], in a float type that is exact.

    Padded positions hold zx, so they are zero once centred.
    """
    weight = operator.weight.values
    dtype = _exact_dtype(weight, operator.bias, source)
    images = _centred(inputs, source, dtype)
    sliding = Sliding.over_images(operator.window)
    sums = convolve(images, weight.astype(dtype), sliding, operator.groups)
    sums += operator.bias.astype(dtype)[:, None, None]
    return _within_int32(sums, operator.name)


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
    per_output = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1) * reach
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
