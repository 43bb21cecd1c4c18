"""Scales and zero points of activations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.quantize.calibration import Calibration, choose_range, quantization_error
from deploykit.quantize.histogram import Histogram
from deploykit.spec.operators import Function
from deploykit.spec.quantized import Quantization, int_range

SMALLEST_SCALE = 2.0**-100
LARGEST_SCALE = 2.0**100
"""LiteRT multiplies scales by 2^20 in float32, and ends the process where that overflows."""

FIXED: Mapping[Function, Quantization] = {
    Function.SIGMOID: Quantization(1 / 256, -128),
    Function.TANH: Quantization(1 / 128, 0),
}
"""The output quantization that LiteRT insists on; both cover the function's whole range."""


def check_scale(tensor: str, scale: float) -> None:
    """Raise QuantizationError where runtimes cannot take the scale of a tensor."""
    if not scale <= LARGEST_SCALE:
        raise QuantizationError(
            f"tensor {tensor}: its scale would be {scale:.3g}, over the {LARGEST_SCALE:.3g} that "
            "runtimes take. Constants that stand for minus infinity, and go into anything but one "
            "softmax, are a cause; write a smaller number there, as -100"
        )


def affine_scale(low: float, high: float) -> Quantization:
    """scale = (high - low) / 255 rounded to float32; zero_point such that zero is an integer.

    With low = 0 the zero point is -128, so saturation is a Relu. Source: Jacob et al. 2018, eq. 1.
    """
    lowest, highest = int_range(8)
    scale = float(np.float32(max((high - low) / (highest - lowest), SMALLEST_SCALE)))
    zero_point = round(lowest - low / scale)
    return Quantization(scale, min(max(zero_point, lowest), highest))


def activation_quantization(
    histogram: Histogram,
    method: Calibration,
    low: float | None,
    high: float | None,
    needed: tuple[float, float] | None = None,
) -> Quantization:
    """Quantization of a computed tensor; low and high are the bounds of its fused activation.

    needed: a range that it holds whatever the histogram says.
    """
    chosen_low, chosen_high = choose_range(histogram, method)
    if needed is not None:
        chosen_low, chosen_high = min(chosen_low, needed[0]), max(chosen_high, needed[1])
    if low is not None:
        chosen_low = max(low, chosen_low)
    if high is not None:
        chosen_high = min(high, chosen_high)
    if not chosen_low < chosen_high:
        chosen_high = chosen_low + 1.0
    return affine_scale(chosen_low, chosen_high)


def input_quantization(histogram: Histogram, method: Calibration) -> Quantization:
    """Quantization of a float graph input: the scale is a power of two.

    Runtimes divide by the scale or multiply with its reciprocal; with a power of two both are
    exact, so that they round every float alike, ties included. Of the two powers around the
    wanted scale the one with the smaller quantization error is taken.
    """
    low, high = choose_range(histogram, method)
    exponent = math.log2(max((high - low) / 255.0, SMALLEST_SCALE))
    candidates = []
    for power in {math.floor(exponent), math.ceil(exponent)}:
        scale = 2.0**power
        lowest, highest = int_range(8)
        zero_point = min(max(round(lowest - low / scale), lowest), highest)
        error = quantization_error(histogram, scale, zero_point)
        candidates.append((error, -power, Quantization(scale, zero_point)))
    return min(candidates, key=lambda candidate: candidate[:2])[2]
