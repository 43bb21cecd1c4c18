"""Scale and zero point of a QuantizeLinear or DequantizeLinear, and the integers of a type.

    real = scale * (q - zero_point)       q in low .. high

Source: ONNX operator specification, QuantizeLinear and DequantizeLinear, opsets 10 to 25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import attribute_int, label
from deploykit.graph.quantized.constants import Constants
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.given import ActivationGrid
from deploykit.spec.quantized import UINT8_SHIFT, Quantization

RANGES = {
    "int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1),
    "uint2": (0, 3), "int16": (-32768, 32767), "uint16": (0, 65535),
    "int32": (-(2**31), 2**31 - 1),
}  # fmt: skip
"""Smallest and largest integer, by numpy's name of the element type."""
DEFAULT = "uint8"
"""Of QuantizeLinear without a zero point."""
IN_EIGHT_BITS = 256


@dataclass(frozen=True)
class Parameters:
    """scale, zero: [] or [n] along `axis`. block: values that share a scale along it; 0: all."""

    scale: Float32Array
    zero: AnyArray
    axis: int
    block: int

    def alike(self, other: Parameters) -> bool:
        """Whether both read the same numbers out of the same integers."""
        same = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)
        by_channel = self.scale.size > 1
        return same and (not by_channel or (self.axis, self.block) == (other.axis, other.block))

    def key(self) -> tuple[object, ...]:
        """Equal where they are alike."""
        return self.scale.tobytes(), self.zero.tobytes(), self.axis if self.scale.size > 1 else 0

    def real(self, integers: AnyArray) -> Float32Array:
        """scale * (q - zero_point), one float32 product each."""
        scale, zero = (self._along(one, integers) for one in (self.scale, self.zero))
        centred = integers.astype(np.int64) - zero.astype(np.int64)
        return np.asarray(centred.astype(np.float32) * scale.astype(np.float32), np.float32)

    def centred(self, integers: AnyArray) -> AnyArray:
        """q - zero_point."""
        return integers.astype(np.int64) - self._along(self.zero, integers).astype(np.int64)

    def rounded(self, real: AnyArray, low: int, high: int) -> AnyArray:
        """clip(rint(real / scale) + zero_point), half to even, division in float32."""
        scale, zero = (self._along(one, real) for one in (self.scale, self.zero))
        steps = np.rint(real.astype(np.float32) / scale) + zero.astype(np.float64)
        return np.asarray(np.clip(steps, low, high).astype(np.int64))

    def _along(self, held: AnyArray, array: AnyArray) -> AnyArray:
        if held.size == 1:
            return held.reshape(())
        axis = self.axis % array.ndim
        if self.block:
            return np.repeat(held, self.block, axis).take(range(array.shape[axis]), axis)
        return held.reshape([-1 if place == axis else 1 for place in range(array.ndim)])


def parameters_of(node: ir.Node, constants: Constants) -> Parameters:
    """Of a QuantizeLinear or DequantizeLinear.

    Raises GraphError where they are computed at run time, or are no float32 numbers.
    """
    scale = constants.value(node.inputs[1])
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros((), np.int64) if zero_point is None else constants.value(zero_point)
    if scale is None or zero is None:
        raise GraphError(
            f"{node.op_type} {label(node)!r} computes its scale from each input (dynamic "
            "quantization), and an integer file has to state it; quantize statically, with "
            "calibration data"
        )
    if scale.dtype != np.float32 or not np.isfinite(scale).all() or not (scale > 0).all():
        raise GraphError(
            f"{node.op_type} {label(node)!r} has a scale that is no positive float32 number; "
            "export the network in float32"
        )
    if zero.dtype.name.startswith(("float", "bfloat")):
        raise GraphError(
            f"{node.op_type} {label(node)!r} makes {zero.dtype.name}, which no kernel of the "
            "runtimes takes; quantize to int8, uint8 or fewer bits"
        )
    if scale.size == 1:
        scale = scale.reshape(())
    wide = np.zeros_like(scale, np.int64) if zero_point is None else zero.astype(np.int64)
    return Parameters(
        scale, wide.reshape(scale.shape), attribute_int(node, "axis", 1),
        attribute_int(node, "block_size", 0),
    )  # fmt: skip


def element_of(node: ir.Node, constants: Constants) -> str:
    """The element type that a QuantizeLinear makes."""
    zero = constants.value(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is not None:
        return zero.dtype.name
    stated = attribute_int(node, "output_dtype", 0)
    return ir.DataType(stated).name.lower() if stated else DEFAULT


def activation_grid(
    node: ir.Node, held: Parameters, kind: str, lows: Sequence[int], highs: Sequence[int]
) -> ActivationGrid:
    """The grid of a tensor that a QuantizeLinear makes, in int8. lows, highs: of Clips behind it.

    Raises GraphError where no integer kernel takes it.
    """
    where = f"{node.op_type} {label(node)!r}"
    if held.scale.size > 1:
        raise GraphError(
            f"{where} has a scale for each channel of an activation, and integer kernels take one "
            "for all; quantize activations per tensor"
        )
    if kind not in RANGES or RANGES[kind][1] - RANGES[kind][0] >= IN_EIGHT_BITS:
        raise GraphError(
            f"{where} makes {kind} activations, for which neither runtime has a fast kernel (a "
            "convolution of them runs slower than in float); quantize activations to 8 bits"
        )
    low, high = max([RANGES[kind][0], *lows]), min([RANGES[kind][1], *highs])
    shift = -UINT8_SHIFT if RANGES[kind][0] == 0 else 0
    quantization = Quantization(float(held.scale), int(held.zero) + shift)
    return ActivationGrid(quantization, low + shift, high + shift, (high - low).bit_length())
