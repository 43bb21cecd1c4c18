"""What rounded weights add to the mean of a layer's outputs, which its bias takes off again.

    b'[o] = b[o] - sum over i of (s[o] * q[o, i] - W[o, i]) * mean(x[i])

Rounding to nearest leaves errors that do not cancel where inputs are positive on average (behind a
Relu). Padding is not counted: at the border less is added.
Source: Nagel et al. 2019, "Data-free quantization", section 4.2.
"""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Float32Array, Float64Array, FloatArray, Int8Array


def corrected_bias(
    bias: FloatArray,
    weight: FloatArray,
    values: Int8Array,
    scale: Float32Array,
    means: Float32Array,
) -> Float64Array:
    """[O]. weight, values: [O, I/groups, ...]; means: [I], of the layer's input channels."""
    outputs, inputs = weight.shape[:2]
    by_channel = scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    error = (values * by_channel - weight.astype(np.float64)).reshape(outputs, inputs, -1).sum(2)
    groups = len(means) // inputs
    seen = means.astype(np.float64).reshape(groups, inputs).repeat(outputs // groups, axis=0)
    return np.asarray(bias.astype(np.float64) - (error * seen).sum(axis=1))


def output_means(values: Int8Array, scale: Float32Array, read: Float64Array) -> Float64Array:
    """[O], means of a layer's outputs without its bias.

    values: [O, I/groups, ...]; read: [I, taps], means of the inputs under each kernel position.
    """
    outputs, inputs = values.shape[:2]
    groups = len(read) // inputs
    rows = values.reshape(groups, outputs // groups, -1).astype(np.float64)
    sums = rows @ read.reshape(groups, -1, 1)
    return np.asarray(scale.astype(np.float64) * sums.reshape(outputs))
