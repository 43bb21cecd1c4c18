"""The integer network: both writers write it, both readers read it, the reference runs it.

Shapes are NCHW (or [N, F]) whatever a file format prefers. Activations are int8 with an affine
quantization, real = scale * (q - zero_point); formats that want uint8 shift both by 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np

from deploykit.spec.arrays import Float32Array, Int8Array, Tensors, UInt8Array
from deploykit.spec.carriers import Version
from deploykit.spec.operators import Conv, Linear, Operator


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

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest real number that it holds."""
        low, high = int_range(self.bits)
        return self.scale * (low - self.zero_point), self.scale * (high - self.zero_point)

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
class IndexTensor:
    """Whole numbers from 0 to below `limit`, no quantization.

    An input's are rows of a table, an output's say which entry is largest. dtype: numpy's name of
    their type in ONNX; in a .tflite file outputs have it too, and inputs int32.
    """

    name: str
    shape: tuple[int, ...]
    limit: int
    dtype: str = "int64"


@dataclass(frozen=True)
class ConstantTensor:
    """Integers that an operator of two reads and nobody computes; their shape broadcasts."""

    name: str
    values: Int8Array
    quantization: Quantization


class IoType(Enum):
    """Element type of the graph's own inputs and outputs."""

    FLOAT = "float"
    INT8 = "int8"
    UINT8 = "uint8"


class Batch(Enum):
    """Whether a file takes the batch that its tensors state, or any; then they state 1."""

    FIXED = "fixed"
    DYNAMIC = "dynamic"


class Tail(Enum):
    """What a file computes in float between the last integers and an output."""

    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log_softmax"

    def __call__(self, real: Float32Array) -> Float32Array:
        """exp(x) over its sum along `tail_axis`, or the logarithm of that, in float32."""
        axis = tail_axis(real.ndim)
        shifted = real - real.max(axis=axis, keepdims=True)
        powers = np.exp(shifted)
        total = powers.sum(axis=axis, keepdims=True)
        found = powers / total if self is Tail.SOFTMAX else shifted - np.log(total)
        return np.asarray(found, dtype=np.float32)


def tail_axis(rank: int) -> int:
    """Along which axis a tail runs: the last of [N, F] and [N, T, F], the channels of [N, C, H, W].

    It is the last one of a .tflite file's tensor too.
    """
    return 1 if rank == 4 else rank - 1


@dataclass(frozen=True)
class Port:
    """A graph input or output: its public name and the integer tensor behind it.

    Whole numbers (IndexTensor) go in and out as they are, whatever the other ports' type.

    tail: of an output, applied to the tensor's real values; only where ports are float.
    """

    name: str
    tensor: str
    tail: Tail | None = None


@dataclass(frozen=True)
class QuantizedNetwork:
    """An integer network; operators are in an order in which they can run.

    tensors: activations. constants: by name too; no tensor has the name of one. indices: what
    holds whole numbers; each is called as its port.
    batch: of the files; the reference takes any.
    min_ort: oldest ONNX Runtime that has to load model.onnx; None: any that can.
    """

    tensors: Mapping[str, ActivationTensor]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    io: IoType = IoType.FLOAT
    constants: Mapping[str, ConstantTensor] = field(default_factory=dict)
    batch: Batch = Batch.FIXED
    indices: Mapping[str, IndexTensor] = field(default_factory=dict)
    min_ort: Version | None = None

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Of an activation or of whole numbers."""
        held = self.indices[tensor] if tensor in self.indices else self.tensors[tensor]
        return held.shape

    def operand(self, name: str) -> ActivationTensor | ConstantTensor:
        """The activation or constant that an operator calls by this name."""
        return self.constants[name] if name in self.constants else self.tensors[name]


def weighted(network: QuantizedNetwork) -> tuple[Conv | Linear, ...]:
    """The operators that have weights."""
    return tuple(one for one in network.operators if isinstance(one, Conv | Linear))


class IntegerRunner(Protocol):
    """Runs an integer network in some way (reference, or a written file in its runtime)."""

    @property
    def name(self) -> str:
        """Who runs it, for reports."""
        ...

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """Every activation as int8 in NCHW, by tensor name.

        inputs: by port name, int8 [N, ...] already quantized, whole numbers as they are; N a
        multiple of the network's batch.
        """
        ...
