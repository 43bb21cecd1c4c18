"""What the rounding of one layer's weights goes by: its inputs, and what its outputs should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.quantize.moments import InputMoments
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array
from deploykit.spec.correction import output_means


@dataclass(frozen=True)
class InputMeans:
    """values: [I], the float network's channel means in front of the layer."""

    values: Float32Array


@dataclass(frozen=True)
class OutputMeans:
    """What the layer should give on average, and what it reads on average once quantized.

    wanted: [O], of the float network's outputs without the bias. read: [C, taps], of the quantized
    inputs under each kernel position, padding included.
    """

    wanted: Float64Array
    read: Float64Array

    def shift(self, values: Int8Array, scale: Float32Array) -> Float32Array:
        """[O], what brings the rounded layer's means to the wanted ones."""
        return (self.wanted - output_means(values, scale, self.read)).astype(np.float32)


@dataclass(frozen=True)
class Evidence:
    """moments: of the inputs; None where weights go to the nearest.

    target: [O, ...], what the integers approximate: the layer's weights, or those moved so that
    they make up for what rounding did to the layer's inputs.
    """

    moments: InputMoments | None
    target: Float64Array
    means: InputMeans | OutputMeans
