"""A constant matrix times the positions, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.channels.rule import (
    Arrangement,
    Constants,
    Cutting,
    Plain,
)
from deploykit.graph.edit import (
    constant,
)


@dataclass(frozen=True)
class SpatialMatMul(Plain):
    """MatMul by a constant along an axis that is not cut: every channel goes through the same sum.

    A constant zero stays zero; any other constant is not followed.
    """

    @staticmethod
    def of(node: ir.Node) -> SpatialMatMul | None:
        """x [..., I] times a constant [I, O]."""
        weight = constant(node.inputs[1])
        return SpatialMatMul() if weight is not None and weight.ndim == 2 else None

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, where the last axis is not cut."""
        return [inputs[0]] if inputs[0].shape[-1] == 1 else None

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        return [np.where(inputs[0] == 0, 0.0, np.nan)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut."""
        return cutting.arranged[:1]
