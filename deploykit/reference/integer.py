"""The integer semantics that every written file has to reproduce, in numpy.

    Conv, Linear       acc = sum (x - zx) * w + bias                      int32, exact
                       m   = (sx * sw) / sy                               float32, in this order
                       y   = clip(rint(float32(acc) * m) + zy, -128, 127)
    Add                k   = 20 - floor(log2(max(sa / sy, sb / sy)))       quotients float32
                       ma  = rint((sa / sy) * 2**k), mb likewise          whole numbers
                       y   = clip(floor(((a - za) * ma + (b - zb) * mb) / 2**k + 1/2) + zy, ...)
    GlobalAveragePool  y   = clip(rint(float32(sum (x - zx)) * (sx / (sy * (H * W)))) + zy, ...)
    MaxPool, Flatten, Clamp  move or compare integers only

rint rounds half to even; products and quotients with a scale in them are float32.

Where the two runtimes' own rules differ, the reference follows one of them exactly, so that the
planner only has to move scales until the other agrees. Add is XNNPACK's fixed-point rule
(src/microparams-init.c, qs8_add_minmax): LiteRT never differs from it, ONNX Runtime on 1e-5 of the
input pairs under free scales and on several per cent under power-of-two ratios, where sums tie.
GlobalAveragePool is the rule of ONNX Runtime (mlas/lib/qlgavgpool.cpp): it never differs,
LiteRT only on ties, which need simple fractions between the scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import assert_never

import numpy as np

from deploykit.errors import DataError, QuantizationError
from deploykit.reference.accumulate import accumulate_conv, accumulate_linear
from deploykit.reference.convolve import chunks
from deploykit.reference.window import taps
from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array, Tensors
from deploykit.spec.quantized import (
    ActivationTensor,
    Add,
    Clamp,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Operator,
    Quantization,
    QuantizedNetwork,
    int_range,
)

ADD_FRACTION_BITS = 20


def run(network: QuantizedNetwork, inputs: Tensors) -> dict[str, Int8Array]:
    """Every activation int8 [N, ...] by tensor name, the inputs' own tensors included.

    inputs: by port name, int8 [N, ...] already quantized; N need not be the network's batch.
    """
    tensors: dict[str, Int8Array] = {}
    for port in network.inputs:
        if port.name not in inputs:
            raise DataError(
                f"No values were given for the input {port.name!r}; given were {sorted(inputs)}."
            )
        tensors[port.tensor] = _checked(inputs[port.name], network.tensors[port.tensor])
    for operator in network.operators:
        tensors[operator.output] = run_operator(operator, network, tensors)
    return tensors


def run_operator(operator: Operator, network: QuantizedNetwork, tensors: Tensors) -> Int8Array:
    """The integers of one operator's output, from the integers of the tensors that it reads."""
    into = network.tensors[operator.output].quantization
    match operator:
        case Conv():
            source = network.tensors[operator.input].quantization
            return conv(operator, tensors[operator.input], source, into)
        case Linear():
            source = network.tensors[operator.input].quantization
            sums = accumulate_linear(operator, tensors[operator.input], source)
            return requantize(
                sums, multiplier(source.scale, operator.weight.scale, into.scale), into
            )
        case Add():
            left, right = tensors[operator.left], tensors[operator.right]
            return add(
                left,
                network.tensors[operator.left].quantization,
                right,
                network.tensors[operator.right].quantization,
                into,
            )
        case MaxPool():
            return max_pool(tensors[operator.input], operator)
        case GlobalAveragePool():
            source = network.tensors[operator.input].quantization
            return global_average_pool(tensors[operator.input], source, into)
        case Flatten():
            values: Int8Array = tensors[operator.input]
            return values.reshape(values.shape[0], -1)
        case Clamp():
            return np.clip(tensors[operator.input], np.int8(operator.low), np.int8(operator.high))
        case _:
            assert_never(operator)


def conv(operator: Conv, values: Int8Array, source: Quantization, into: Quantization) -> Int8Array:
    """[N, C, H, W] -> [N, O, H', W'], a bounded number of images at a time."""
    scale = multiplier(source.scale, operator.weight.scale[:, None, None], into.scale)
    parts = [
        requantize(accumulate_conv(operator, values[part], source), scale, into)
        for part in chunks(values.shape, operator.window)
    ]
    return np.concatenate(parts)


def multiplier(input_scale: float, weight_scale: Float32Array, output_scale: float) -> Float32Array:
    """(sx * sw) / sy in float32, left to right; sx * (sw / sy) already rounds differently."""
    product = np.float32(input_scale) * weight_scale.astype(np.float32)
    return np.asarray(product / np.float32(output_scale), dtype=np.float32)


def requantize(sums: AnyArray, scale: Float32Array, into: Quantization) -> Int8Array:
    """clip(rint(float32(sums) * scale) + zero point) for exact integer sums of any dtype."""
    real = sums.astype(np.float32)
    real *= scale
    return _rounded(real, into)


def add(
    left: Int8Array,
    left_quantization: Quantization,
    right: Int8Array,
    right_quantization: Quantization,
    into: Quantization,
) -> Int8Array:
    """XNNPACK's sum: both sides in steps of 2**-k of the output, then rounded half up."""
    left_ratio = np.float32(left_quantization.scale) / np.float32(into.scale)
    right_ratio = np.float32(right_quantization.scale) / np.float32(into.scale)
    shift = ADD_FRACTION_BITS - (math.frexp(max(left_ratio, right_ratio))[1] - 1)
    if not 0 < shift < 52:
        raise QuantizationError(
            f"A sum of tensors with scales {left_quantization.scale:g} and "
            f"{right_quantization.scale:g} cannot be written with the scale {into.scale:g}; "
            "plan an output scale within a factor of 256 of the larger input scale."
        )
    left_steps = np.int64(round(math.ldexp(float(left_ratio), shift)))
    right_steps = np.int64(round(math.ldexp(float(right_ratio), shift)))
    offset = (
        (np.int64(1) << np.int64(shift - 1))
        - left_steps * left_quantization.zero_point
        - right_steps * right_quantization.zero_point
    )
    sums = left * left_steps
    sums += right * right_steps
    sums += offset
    sums >>= shift
    sums += into.zero_point
    return np.asarray(np.clip(sums, *int_range(into.bits)), dtype=np.int8)


def global_average_pool(values: Int8Array, source: Quantization, into: Quantization) -> Int8Array:
    """Mean over the last two axes [N, C, H, W] -> [N, C, 1, 1], from the exact sum."""
    area = values.shape[2] * values.shape[3]
    sums = values.sum(axis=(2, 3), keepdims=True, dtype=np.int32)
    sums -= np.int32(area * source.zero_point)
    scale = np.float32(source.scale) / (np.float32(into.scale) * np.float32(area))
    return requantize(sums, np.asarray(scale, dtype=np.float32), into)


def max_pool(values: Int8Array, operator: MaxPool) -> Int8Array:
    """Largest integer under the window; padded positions never win."""
    best: Int8Array | None = None
    for _, seen in taps(values, operator.window, -128):
        best = seen.copy() if best is None else np.maximum(best, seen, out=best)
    if best is None:
        raise DataError(f"{operator.name}: the pooling window is empty.")
    return best


class ReferenceRunner:
    """IntegerRunner on this module."""

    name = "reference"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Mapping[str, Int8Array]:
        """Every activation as int8, by tensor name."""
        return run(network, inputs)


def _rounded(steps: Float32Array, into: Quantization) -> Int8Array:
    """clip(rint(steps) + zero point); overwrites `steps`."""
    low, high = int_range(into.bits)
    np.rint(steps, out=steps)
    steps += np.float32(into.zero_point)
    np.clip(steps, low, high, out=steps)
    return steps.astype(np.int8)


def _checked(values: AnyArray, tensor: ActivationTensor) -> Int8Array:
    """The values themselves, when they are int8 and of the tensor's shape but for the batch."""
    if values.dtype != np.int8 or values.shape[1:] != tensor.shape[1:]:
        expected = ", ".join(("N", *map(str, tensor.shape[1:])))
        raise DataError(
            f"{tensor.name}: expected int8 [{expected}], got {values.dtype} "
            f"{list(values.shape)}; quantize the input with the tensor's own scale first."
        )
    return values
