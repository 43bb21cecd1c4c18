"""Weights alone in integers: linears that multiply float32 activations with 4- or 8-bit weights.

    y = x W' + b    W' [O, I] = scale[o, i // block] * q[o, i], symmetric

with one scale per output (block = I), or, of 4 bits, one per block of 32, 64 or 128 inputs.

Both runtimes have kernels for linears only: ONNX Runtime MatMulNBits (com.microsoft), LiteRT
FULLY_CONNECTED with integer weights. Both round each row of activations to int8 as it comes, at its
own scale, so that what is equal in both files is the weights, and outputs differ by that rounding.
MatMulNBits wants a scale per block in any case: where there is one per output, each of its blocks
has that. LiteRT takes blocks of INT4 alone, with scales of float16, which XNNPACK reads as
bfloat16; scales that both hold are float32 in MatMulNBits without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from deploykit.spec.arrays import Float32Array, Int8Array
from deploykit.spec.carriers import Carrier
from deploykit.spec.plan import Rounding, WeightRange

BITS = (4, 8)
"""That both runtimes multiply without unpacking them at every call."""
BLOCKS = (256, 128, 64, 32)
"""Sizes of MatMulNBits, the fastest first: of 64 rows by 768 x 3072 weights of 4 bits, 256 take a
quarter of 32's time on AVX512-VNNI; one row takes 0.7 of it."""


BLOCK_SIZES = (32, 64, 128)
"""Inputs that share a scale, where each output has several: what both runtimes take."""
BLOCK_BITS = 4
SMALLEST_BLOCK_SCALE = 2.0**-14
"""Of float16's normal numbers."""


class Activations(Enum):
    """What layers compute on. FLOAT: weights alone are integers, all between them is float32."""

    INT8 = "int8"
    FLOAT = "float"


@dataclass(frozen=True)
class LowBitLinear:
    """Integers of one layer's weight. name: of the node. output: of the tensor that it computes.

    values: [O, I]; scale: [O, B], B blocks of I/B inputs each. weight: name of the
    initializer, which several layers may share.
    """

    name: str
    output: str
    weight: str
    bits: int
    values: Int8Array
    scale: Float32Array

    @property
    def dequantized(self) -> Float32Array:
        """[O, I], the products in float32."""
        return products(self.values, self.scale)

    @property
    def block(self) -> int | None:
        """Inputs that share a scale; None where all of an output do."""
        blocks = self.scale.shape[1]
        return None if blocks == 1 else self.values.shape[1] // blocks

    def carrier(self, fmt: str) -> Carrier:
        """How a format's file holds it; XNNPACK's INT4 asks for an even number of inputs."""
        if self.bits == Carrier.INT8.bits or (fmt == "tflite" and self.values.shape[1] % 2):
            return Carrier.INT8
        return Carrier.INT4


@dataclass(frozen=True)
class WeightOnlyPlan:
    """Every decision. layers: by name, in graph order. in_float: linears that stay in float32."""

    layers: Mapping[str, LowBitLinear]
    in_float: tuple[str, ...]
    rounding: Rounding
    weight_range: WeightRange
    samples: int

    @property
    def block(self) -> int | None:
        """Inputs that share a scale in layers with blocks; None where no layer has any."""
        return next((one.block for one in self.layers.values() if one.block is not None), None)


def products(values: Int8Array, scale: Float32Array) -> Float32Array:
    """[O, I] of integers [O, I] and scales [O, B], in float32."""
    return np.asarray(values.astype(np.float32) * by_input(scale, values.shape[1]), np.float32)


def by_input(scale: Float32Array, inputs: int) -> Float32Array:
    """Scales [O, B] for each input: [O, 1] where there is one, else [O, I]."""
    blocks = scale.shape[1]
    return scale if blocks == 1 else np.repeat(scale, inputs // blocks, axis=1)


def held_by_both(scale: Float32Array) -> Float32Array:
    """The next larger number that float16 and bfloat16 both have: 8 bits of mantissa."""
    mantissa, exponent = np.frexp(np.maximum(scale.astype(np.float64), SMALLEST_BLOCK_SCALE))
    return np.asarray(np.ldexp(np.ceil(mantissa * 256) / 256, exponent), np.float32)


def block_size(inputs: int) -> int:
    """Of MatMulNBits for so many inputs: the largest that divides them, else the smallest."""
    return next((size for size in BLOCKS if inputs % size == 0), BLOCKS[-1])
