"""What calibration samples show of every channel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.inputs import GraphInputs, count_samples, some_samples
from deploykit.spec.network import FloatEvaluator, Network

AT_ONCE = 4
"""Samples that are evaluated together."""


@dataclass(frozen=True)
class ChannelRange:
    """Over all samples and positions of a tensor, each [C]; lowest <= 0 <= highest.

    square: mean of squares.
    """

    lowest: Float64Array
    highest: Float64Array
    square: Float64Array

    @property
    def largest(self) -> Float64Array:
        """Of magnitudes."""
        return np.maximum(self.highest, -self.lowest)

    @property
    def width(self) -> float:
        """Of the range that holds every channel, and zero."""
        return float(self.highest.max(initial=0.0) - self.lowest.min(initial=0.0))

    def merged(self, other: ChannelRange, share: float) -> ChannelRange:
        """share: of this one's samples in both."""
        return ChannelRange(
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            share * self.square + (1.0 - share) * other.square,
        )


def channel_ranges(
    network: Network, tensors: Collection[str], inputs: GraphInputs, evaluate: FloatEvaluator
) -> dict[str, ChannelRange]:
    """Of the tensors named, which are [N, C, ...]; a few samples of `inputs` at a time.

    Raises DataError where one becomes infinite or NaN.
    """
    found: dict[str, ChannelRange] = {}
    if not tensors:
        return found
    watched, count = _watched(network, tensors), count_samples(inputs)
    for start in range(0, count, AT_ONCE):
        stop = min(start + AT_ONCE, count)
        values = evaluate(watched, some_samples(inputs, slice(start, stop)))
        for name in tensors:
            if not np.isfinite(values[name]).all():
                raise DataError(
                    f"tensor {name} is not finite on calibration samples {start} to {stop - 1}; "
                    "check that the data is preprocessed as in training"
                )
            here = _range(values[name])
            found[name] = found[name].merged(here, start / stop) if name in found else here
    return found


def _watched(network: Network, tensors: Collection[str]) -> Network:
    """The same graph with these tensors as its outputs."""
    model = network.model.clone()
    made = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs[:] = [made[name] for name in tensors if name in made]
    return network.rewritten(model)


def _range(values: AnyArray) -> ChannelRange:
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return ChannelRange(
        np.asarray(values.min(axis=axes, initial=0.0), np.float64),
        np.asarray(values.max(axis=axes, initial=0.0), np.float64),
        np.asarray(np.square(values, dtype=np.float64).mean(axis=axes)),
    )
