"""Scaling the weights of a convolution or linear, values and variances together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_float,
    attribute_int,
    constant,
    drop_unused_initializers,
    floats,
    fresh_name,
    set_initializer,
)
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, IntArray
from deploykit.spec.given import Given
from deploykit.spec.network import Network, static_shape


@dataclass
class Affine:
    """The graph being rewritten, its variances, and the names whose values changed.

    element: type of the numbers that are stored; None: the initializer's own. factors: by which an
    initializer was scaled, which its grid follows, each with the axis of its outputs. copies: by
    name, of which initializer each is.
    rounded: tensors on a grid, which only what they are may lie on: no factor moves past them.
    """

    graph: ir.Graph
    variance: dict[str, Float32Array]
    updated: set[str] = field(default_factory=set)
    factors: dict[str, list[tuple[Float64Array, int]]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    element: np.dtype[Any] | None = None
    rounded: Collection[str] = ()

    def scale(self, name: str, factor: Float64Array, outputs: int = 0) -> None:
        """Multiply an initializer by `factor` (broadcasting) and its variance by factor^2.

        outputs: the axis of a weight that runs along its layer's outputs.
        """
        value = floats(self.graph.initializers[name])
        assert value is not None
        spread = self.spread(name)
        self.store(name, value * factor, None if spread is None else spread * factor**2)
        self.factors.setdefault(name, []).append((factor, outputs))

    def shift(self, name: str, offset: Float64Array) -> None:
        """Add a constant; the variance stays."""
        value = floats(self.graph.initializers[name])
        assert value is not None
        self.store(name, value + offset, self.spread(name))

    def spread(self, name: str) -> Float64Array | None:
        """The variance of an initializer in float64, or None where it has none."""
        variance = self.variance.get(name)
        return None if variance is None else variance.astype(np.float64)

    def store(self, name: str, value: Float64Array, variance: Float64Array | None) -> None:
        """Give an initializer new numbers, rounded to `element`, and their variance.

        variance: in the shape of `value`; None, or not looked at, where the initializer has none.
        """
        before = constant(self.graph.initializers[name])
        assert before is not None
        element = before.dtype if self.element is None else self.element
        set_initializer(self.graph, name, value.astype(element))
        self.updated.add(name)
        if name in self.variance:
            assert variance is not None
            self.variance[name] = variance.astype(np.float32)

    def take(self, name: str, channels: IntArray, axis: int) -> None:
        """Keep some channels of an initializer and of its variance."""
        value, spread = floats(self.graph.initializers[name]), self.spread(name)
        assert value is not None
        kept = None if spread is None else np.take(spread, channels, axis=axis)
        self.store(name, np.take(value, channels, axis=axis), kept)

    def finish(self, before: Network, model: ir.Model) -> Rewritten:
        """The rewritten network, with unread initializers gone."""
        drop_unused_initializers(model.graph)
        left = model.graph.initializers
        variance = {name: v for name, v in self.variance.items() if name in left}
        dropped = frozenset(before.variance) - frozenset(variance)
        given = self._given(before.given)
        return Rewritten(Network(model, variance, given), frozenset(self.updated), dropped)

    def _given(self, before: Given) -> Given:
        """The grids of scaled weights; of a weight that was scaled otherwise, the old one.

        The weight is no longer on that one, and planning says so.
        """
        held = before.weights
        copied = {name: held[old] for name, old in self.copies.items() if old in held}
        weights = dict(held) | copied
        for name, factors in self.factors.items():
            for factor, outputs in factors if name in weights else ():
                weights[name] = weights[name].scaled(factor, outputs) or weights[name]
        return replace(before, weights=weights) if weights else before


def own_weight(value: ir.Value | None) -> bool:
    """Whether a weight is an initializer that exactly one node reads, so that it may change.

    One that is a graph output too has another reader: whoever runs the graph.
    """
    if value is None or not value.is_initializer() or value.is_graph_output():
        return False
    return len(value.uses()) == 1


def output_axis(node: ir.Node) -> int | None:
    """Axis of the weight (input 1) that runs along output channels; None for other operators."""
    match node.op_type:
        case "Conv":
            return 0
        case "Gemm":
            return 0 if attribute_int(node, "transB", 0) else 1
        case "MatMul":
            return 1
        case "ConvTranspose" if attribute_int(node, "group", 1) == 1:
            return 1
        case _:
            return None


def along(vector: Float64Array, axis: int, rank: int) -> Float64Array:
    """A vector shaped to broadcast along one axis of a rank-`rank` array."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def scale_producer(
    affine: Affine, producer: ir.Node, scale: Float64Array, offset: Float64Array
) -> bool:
    """Fold y = scale * producer(x) + offset into the producer; False where it cannot be.

    A MatMul has no bias to carry the offset and is left alone unless the offset is zero.
    """
    if producer.outputs[0].name in affine.rounded:
        return False
    axis = output_axis(producer)
    weight = producer.inputs[1] if len(producer.inputs) > 1 else None
    if axis is None or weight is None or not own_weight(weight):
        return False
    array = floats(weight)
    if array is None or (producer.op_type == "MatMul" and not _is_linear(producer, array)):
        return False
    bias = producer.inputs[2] if len(producer.inputs) > 2 else None
    if bias is not None and not own_weight(bias):
        return False
    if producer.op_type == "MatMul" and np.any(offset != 0):
        return False
    if producer.op_type == "Gemm" and attribute_float(producer, "beta", 1.0) != 1.0:
        return False
    affine.scale(str(weight.name), along(scale, axis, array.ndim), axis)
    if producer.op_type == "MatMul":
        return True
    if bias is not None:
        affine.scale(str(bias.name), scale)
        affine.shift(str(bias.name), offset)
        return True
    stem = str(weight.name).removesuffix("weight")
    name = fresh_name(affine.graph, f"{stem}bias" if stem.endswith(".") else f"{weight.name}.bias")
    created = set_initializer(affine.graph, name, offset.astype(_element_type(weight)))
    if len(producer.inputs) <= 2:
        producer.resize_inputs(3)
    producer.replace_input_with(2, created)
    return True


def _element_type(value: ir.Value) -> np.dtype[Any]:
    array = constant(value)
    assert array is not None
    return array.dtype


def _is_linear(matmul: ir.Node, weight: AnyArray) -> bool:
    """x [N, I] times W [I, O]: only there the output's channels (axis 1) are W's columns."""
    shape = static_shape(matmul.outputs[0])
    return weight.ndim == 2 and shape is not None and len(shape) == 2
