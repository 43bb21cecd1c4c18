"""The float graph between stages: ONNX, with the posterior variance beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from deploykit.spec.arrays import AnyArray, Float32Array, Tensors


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes of a tensor, or None where any of them is unknown or symbolic."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    return sizes if len(sizes) == len(value.shape) else None


@dataclass(frozen=True)
class Network:
    """A float ONNX graph and the variance of each initializer that has one.

    Whoever receives a Network never changes `model` in place: a pass works on a clone.
    """

    model: ir.Model
    variance: Mapping[str, Float32Array]


GraphInputs = AnyArray | Tensors
"""Values [N, ...] of a graph's one input, or of each of its inputs by name."""


class FloatEvaluator(Protocol):
    """Evaluates a float graph; how is the caller's choice (reference in float64, or a runtime)."""

    def __call__(self, network: Network, inputs: GraphInputs) -> Tensors:
        """Tensors of the graph by name, its outputs among them.

        Integer inputs are taken as integers. What else is returned (every tensor that the graph
        computes, or the outputs alone) is the evaluator's contract with its caller.
        """
        ...
