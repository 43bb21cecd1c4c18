"""Weights of Conv, ConvTranspose, Gemm and MatMul in one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int
from deploykit.spec.arrays import AnyArray, Float64Array


@dataclass(frozen=True)
class KernelLayout:
    """How an operator stores its weight; canonical is [O, I/groups, taps...].

    Conv and Gemm with transB store that. ConvTranspose stores [I, O/groups, taps...], MatMul
    [I, O].
    """

    operator: str
    groups: int

    @staticmethod
    def of(node: ir.Node) -> KernelLayout:
        """Of a Conv, ConvTranspose, Gemm or MatMul."""
        return KernelLayout(node.op_type, attribute_int(node, "group", 1))

    def canonical(self, stored: AnyArray) -> AnyArray:
        """[O, I/groups, taps...] from the stored form."""
        if self.operator == "MatMul":
            return stored.T
        if self.operator == "ConvTranspose":
            return _swapped(stored, self.groups)
        return stored

    def stored(self, canonical: Float64Array, groups: int) -> Float64Array:
        """The inverse, for a number of groups that may have changed."""
        if self.operator == "MatMul":
            return canonical.T
        if self.operator == "ConvTranspose":
            return _swapped(canonical, groups)
        return canonical


def _swapped(weight: AnyArray, groups: int) -> AnyArray:
    """[g * a, b, taps...] as [g * b, a, taps...]; its own inverse."""
    a, b = weight.shape[0] // groups, weight.shape[1]
    grouped = weight.reshape(groups, a, b, *weight.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(grouped.reshape(groups * b, a, *weight.shape[2:]))


def taps(weight: Float64Array) -> tuple[int, ...]:
    """Axes of a canonical weight that run along the taps."""
    return tuple(range(2, weight.ndim))
