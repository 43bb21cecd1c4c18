"""The integer network: both writers write it, both readers read it, the reference runs it.

Shapes are NCHW (or [N, F]) whatever a file format prefers. Activations are int8 with an affine
quantization, real = scale * (q - zero_point); formats that want uint8 shift both by 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from deploykit.spec.arrays import Float32Array, Int8Array, Int32Array, Tensors, UInt8Array


def int_range(bits: int) -> tuple[int, int]:
    """Smallest and largest two's-complement integer. int_range(4) -> (-8, 7)."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


UINT8_SHIFT = 128
"""What an int8 integer, and its zero point, are less than their uint8 form."""


def as_uint8(integers: Int8Array) -> UInt8Array:
    """The same integers 128 higher. as_uint8([-128, 0, 127]) -> [0, 128, 255]"""
    return np.ascontiguousarray(integers).view(np.uint8) ^ np.uint8(UINT8_SHIFT)


def as_int8(integers: UInt8Array) -> Int8Array:
    """The same integers 128 lower. as_int8([0, 128, 255]) -> [-128, 0, 127]"""
    return (integers ^ np.uint8(UINT8_SHIFT)).view(np.int8)


@dataclass(frozen=True)
class Quantization:
    """Per-tensor affine quantization of an activation. `scale` is exactly a float32."""

    scale: float
    zero_point: int
    bits: int = 8

    def quantize(self, real: Float32Array) -> Int8Array:
        """clip(rint(real / scale) + zero_point), half to even, division in float32."""
        low, high = int_range(self.bits)
        steps = np.rint(real.astype(np.float32) / np.float32(self.scale))
        shifted = np.clip(steps + np.float32(self.zero_point), low, high)
        return np.asarray(shifted, dtype=np.int8)

    def dequantize(self, integers: Int8Array) -> Float32Array:
        """scale * (q - zero_point) in float32."""
        centred = integers.astype(np.int32) - self.zero_point
        return np.asarray(centred.astype(np.float32) * np.float32(self.scale), dtype=np.float32)


@dataclass(frozen=True)
class ActivationTensor:
    """An integer tensor of the network. shape includes the batch."""

    name: str
    shape: tuple[int, ...]
    quantization: Quantization


@dataclass(frozen=True)
class IntegerWeight:
    """Symmetric per-output-channel weights. values: [O, ...] int8 within `bits`; scale: [O]."""

    name: str
    values: Int8Array
    scale: Float32Array
    bits: int = 8


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window. pads: top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Conv:
    """weight: [O, I/groups, kh, kw]; bias: [O] int32 in steps of input scale * weight scale.

    Padded positions hold the input's zero point, so they add nothing.
    """

    name: str
    input: str
    output: str
    weight: IntegerWeight
    bias: Int32Array
    window: Window
    groups: int = 1


@dataclass(frozen=True)
class Linear:
    """weight: [O, I]; bias: [O] int32. input: [N, I]."""

    name: str
    input: str
    output: str
    weight: IntegerWeight
    bias: Int32Array


@dataclass(frozen=True)
class Add:
    """Sum of two tensors of equal shape; each of the three has scales of its own."""

    name: str
    left: str
    right: str
    output: str


@dataclass(frozen=True)
class MaxPool:
    """Padded positions never win. Input and output share one quantization."""

    name: str
    input: str
    output: str
    window: Window


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over H and W, which stay as axes of length 1."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Flatten:
    """[N, C, H, W] -> [N, C*H*W], channel-major. Input and output share one quantization."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Clamp:
    """clip(q, low, high) for an activation that could not be fused into its producer's range.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    low: int
    high: int


Operator = Conv | Linear | Add | MaxPool | GlobalAveragePool | Flatten | Clamp


def operator_inputs(operator: Operator) -> tuple[str, ...]:
    """Names of the activations that an operator reads."""
    if isinstance(operator, Add):
        return (operator.left, operator.right)
    return (operator.input,)


class IoType(Enum):
    """Element type of the graph's own inputs and outputs."""

    FLOAT = "float"
    INT8 = "int8"
    UINT8 = "uint8"


@dataclass(frozen=True)
class Port:
    """A graph input or output: its public name and the integer tensor behind it."""

    name: str
    tensor: str


@dataclass(frozen=True)
class QuantizedNetwork:
    """An integer network; operators are in an order in which they can run."""

    tensors: Mapping[str, ActivationTensor]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    io: IoType = IoType.FLOAT


class IntegerRunner(Protocol):
    """Runs an integer network in some way (reference, or a written file in its runtime)."""

    @property
    def name(self) -> str:
        """Who runs it, for reports."""
        ...

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """Every activation as int8 in NCHW, by tensor name.

        inputs: by port name, int8 [N, ...] already quantized; N a multiple of the network's batch.
        """
        ...
