"""Layers whose weights are numbers and whose gates are random: the moments of their product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.moments import all_float32, along, float32
from deploykit.spec.arrays import Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior


@dataclass(frozen=True)
class Gates:
    """value: what evaluation multiplies with. All of one shape: [gates], or that of the weight."""

    value: Float64Array
    variance: Float64Array
    score: Float64Array


@dataclass(frozen=True)
class GatedLayer:
    """What gates multiply, in the shapes of the torch twin.

    axis: of the weight, along which the gates run; None where every weight has its own.
    gated: which of "weight" and "bias" they multiply.
    """

    weight: Float64Array
    bias: Float64Array | None
    axis: int | None
    gated: tuple[str, ...] = ("weight",)

    def times(self, gates: Float64Array) -> dict[str, Float64Array]:
        """weight and bias with the gates multiplied in."""
        parameters = self._parameters()
        return {
            key: value * self._along(value, gates) if key in self.gated else value
            for key, value in parameters.items()
        }

    def noise(self, variance: Float64Array) -> dict[str, Float64Array]:
        """Var[z w] = w^2 Var[z]; zero where nothing is gated."""
        return {
            key: value**2 * self._along(value, variance)
            if key in self.gated
            else np.zeros_like(value)
            for key, value in self._parameters().items()
        }

    def gate_shape(self) -> tuple[int, ...]:
        """The shape that the gates have to have."""
        return self.weight.shape if self.axis is None else (self.weight.shape[self.axis],)

    def _parameters(self) -> dict[str, Float64Array]:
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})

    def _along(self, value: Float64Array, gates: Float64Array) -> Float64Array:
        if self.axis is None:
            return gates
        return along(self.axis if value is self.weight else 0, value.ndim, gates)


def gate_layer(channels: int) -> GatedLayer:
    """A layer of gates alone: its twin multiplies channel c by the gate c."""
    return GatedLayer(np.ones(channels), None, 0)


Layer = Callable[[Tensors], GatedLayer]
GatesOf = Callable[[Tensors], Gates]
Drawn = Callable[[Tensors, np.random.Generator], Float64Array]


def gated_posterior(
    family: str, layer_of: Layer, gates_of: GatesOf
) -> Callable[[str, Tensors], LayerPosterior]:
    """The `posterior` of a family: (layer name, tensors) -> moments of the twin's parameters."""

    def posterior(name: str, tensors: Tensors) -> LayerPosterior:
        layer, gates = layer_of(tensors), gates_of(tensors)
        if gates.value.shape != layer.gate_shape():
            raise CheckpointError(
                f"layer '{name}': gates of shape {gates.value.shape} do not fit a weight of shape "
                f"{layer.weight.shape}, which asks for {layer.gate_shape()}; the checkpoint mixes "
                "two layers"
            )
        return LayerPosterior(
            name=name,
            family=family,
            mean=all_float32(name, layer.times(gates.value)),
            variance=all_float32(name, layer.noise(gates.variance)),
            gate_score=float32(name, gates.score),
            gate_axis=layer.axis,
            gated=layer.gated,
        )

    return posterior


def gated_sample(
    layer_of: Layer, draw_gates: Drawn
) -> Callable[[Tensors, np.random.Generator], Mapping[str, Float32Array]]:
    """The `sample` of a family: one draw of all gates, multiplied in."""

    def sample(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
        drawn = layer_of(tensors).times(draw_gates(tensors, generator))
        return {key: value.astype(np.float32) for key, value in drawn.items()}

    return sample
