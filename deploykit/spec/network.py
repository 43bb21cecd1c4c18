"""The float graph between stages: ONNX, with the posterior variance beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import onnx_ir as ir

from deploykit.spec.arrays import Float32Array, Tensors
from deploykit.spec.given import NOTHING_GIVEN, Given
from deploykit.spec.inputs import GraphInputs


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
    given: the grids that it was trained on.
    in_float: names of nodes that stay in float, whatever integer form they have.
    """

    model: ir.Model
    variance: Mapping[str, Float32Array]
    given: Given = NOTHING_GIVEN
    in_float: frozenset[str] = frozenset()

    def rewritten(self, model: ir.Model) -> Network:
        """Another graph, with the same beside it."""
        return replace(self, model=model)


def input_names(network: Network) -> tuple[str, ...]:
    """Of the graph's inputs, in its order."""
    return tuple(str(value.name) for value in network.model.graph.inputs)


class FloatEvaluator(Protocol):
    """Evaluates a float graph; how is the caller's choice (reference in float64, or a runtime)."""

    def __call__(self, network: Network, inputs: GraphInputs) -> Tensors:
        """Tensors of the graph by name, its outputs among them.

        Integer inputs are taken as integers. What else is returned (every tensor that the graph
        computes, or the outputs alone) is the evaluator's contract with its caller.
        """
        ...
