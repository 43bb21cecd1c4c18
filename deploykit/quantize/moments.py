"""Second moments of a layer's inputs, which say what a rounded weight costs.

    H = E[(x - m)(x - m)']   m: the channel means; x: what the weights of one output see

With rounding errors e of one output's weights, its error has the variance e' H e about what the
corrected bias takes off (spec.correction), at borders with their zeros too.
Source: Nagel et al. 2020, "Up or Down?", equation 13; Frantar et al. 2023, GPTQ, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.nodes import parameter, window_of
from deploykit.quantize.operators import Kind
from deploykit.quantize.patches import sample_patches
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import Float32Array, Float64Array, FloatArray
from deploykit.spec.network import static_shape

FEWEST, MOST, PER_INPUT = 2048, 4096, 4
"""Output positions looked at per layer, over all samples: PER_INPUT * n within these bounds."""
AT_ONCE = 256
"""Positions that one matrix product adds."""


def compensates(layer: Layer) -> bool:
    """Whether a block of the layer's weights has more than one, so that errors can cancel."""
    weight, source = parameter(layer.nodes[0], 1), static_shape(layer.nodes[0].inputs[0])
    assert source is not None
    return bool(weight[0].size > blocking_of(weight, source[1]).parts)


@dataclass(frozen=True)
class InputMoments:
    """blocks: [B, n, n]; positions: how many patches they were measured on."""

    blocking: Blocking
    blocks: Float32Array
    positions: int

    def trusted(self) -> Float32Array:
        """Blocks whose off-diagonals are shrunk by positions / (positions + n).

        From few patches correlations are seen that are none, and rounding would follow them.
        """
        size = self.blocks.shape[1]
        shrunk = self.blocks * np.float32(self.positions / (self.positions + size))
        every = np.arange(size)
        shrunk[:, every, every] = self.blocks[:, every, every]
        return shrunk


class MomentSums:
    """Adds up x and x x' of one layer, sample after sample."""

    def __init__(self, layer: Layer, samples: int) -> None:
        node = layer.nodes[0]
        source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        assert source is not None and output is not None
        weight = parameter(node, 1)
        self._window = window_of(node) if layer.kind is Kind.CONV else None
        self._output = output[2:]
        self._blocking = blocking_of(weight, source[1])
        size = weight[0].size // self._blocking.parts
        self._count = max(1, min(max(FEWEST, PER_INPUT * size), MOST) // samples)
        blocks = self._blocking.groups * self._blocking.parts
        self._sums = np.zeros((blocks, size))
        self._products = np.zeros((blocks, size, size), np.float32)
        self._seen = 0
        self._waiting: list[FloatArray] = []

    def add(self, values: FloatArray, sample: int) -> None:
        """values: [rows, C, ...] of one sample; `sample`, its number, draws the positions."""
        patches = sample_patches(values, self._window, self._output, self._count, sample)
        self._waiting.append(patches)
        if sum(map(len, self._waiting)) >= AT_ONCE:
            self._take_in()

    def _take_in(self) -> None:
        patches = np.concatenate(self._waiting)
        self._waiting.clear()
        split = np.ascontiguousarray(self._blocking.split_inputs(patches), np.float32)
        self._sums += split.sum(axis=1, dtype=np.float64)
        self._products += split.transpose(0, 2, 1) @ split
        self._seen += len(patches)

    def about(self, means: Float64Array) -> InputMoments:
        """The moments about the channel means [C], of all that was added."""
        if self._waiting:
            self._take_in()
        taps = self._sums.size // len(means)
        centre = means.repeat(taps).reshape(self._sums.shape)
        mixed = centre[:, :, None] * (centre / 2 - self._sums / self._seen)[:, None, :]
        blocks = self._products / self._seen + mixed + mixed.transpose(0, 2, 1)
        return InputMoments(self._blocking, blocks.astype(np.float32), self._seen)
