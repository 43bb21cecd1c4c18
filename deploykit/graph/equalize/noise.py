"""Rounding noise that the readers of a chain are predicted to have, over their signal.

With factors 2^k[c] on the channels of a chain, for an output o of a reader over its inputs c:

    weights      (max over c of |W[o,c]| 2^-k[c] / q)^2 / 12 * T * sum over c of E[x[c]^2] 4^k[c]
    activations  step^2 / 12 * sum over c of |W[o,c]|^2 4^-k[c]      step = width of the range / 255

each over sum over c of E[x[c]^2] |W[o,c]|^2, the mean over o, the sum over readers and tensors.
q: largest integer of a weight; T: taps. A row has a scale of its own, so that factors of its output
change nothing there. A tensor of a chain counts as if all of its readers heard it.
Source: Widrow and Kollar 2008, "Quantization noise", chapter 1 (step^2 / 12).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.graph.equalize.chains import Chain
from deploykit.graph.equalize.measured import ChannelRange
from deploykit.spec.arrays import Float64Array, IntArray

STEPS = 255.0
"""Of an activation's range."""


@dataclass(frozen=True)
class RoundedTensor:
    """A tensor that becomes integers. places: [C], of its channels among the chain's atoms."""

    places: IntArray
    seen: ChannelRange


@dataclass(frozen=True)
class Reader:
    """A layer whose rows multiply several channels.

    places: [O, I] among the chain's atoms; largest: [O, I] of |W| over its taps; power: [O, I], of
    T E[x^2] over the row's signal, 0 in rows that hear nothing. levels: q above.
    """

    places: IntArray
    largest: Float64Array
    power: Float64Array
    levels: int


@dataclass(frozen=True)
class NoiseModel:
    """Of one chain, by atom [n].

    gain: noise over signal that readers make of a channel's noise power. loudest: a channel's
    largest magnitude, over its tensor's range. column: the largest weight that multiplies it, over
    the root of its row's signal; 0 where only rows of one channel read it.
    """

    tensors: tuple[RoundedTensor, ...]
    readers: tuple[Reader, ...]
    gain: Float64Array
    loudest: Float64Array
    column: Float64Array

    def predicted(self, exponents: IntArray) -> float:
        """Noise over signal. exponents: [n], k of each atom."""
        factor = np.exp2(exponents.astype(np.float64))
        total = 0.0
        for tensor in self.tensors:
            own = factor[tensor.places]
            width = (tensor.seen.highest * own).max() - (tensor.seen.lowest * own).min()
            total += (width / STEPS) ** 2 / 12 * (self.gain[tensor.places] / own**2).sum()
        for reader in self.readers:
            own = factor[reader.places]
            steps = (reader.largest / own).max(axis=1) / reader.levels
            total += (steps**2 / 12 * (reader.power * own**2).sum(axis=1)).mean()
        return float(total)


def noise_model(
    chain: Chain,
    labels: Mapping[str, IntArray],
    weights: Mapping[str, Float64Array],
    seen: Mapping[str, ChannelRange],
    levels: Mapping[str, int],
) -> NoiseModel:
    """weights: rows [O, I, taps], levels: largest integer of a weight, both by layer."""
    gain, column, loudest = (np.zeros(len(chain.atoms)) for _ in range(3))
    readers, tensors = [], []
    for layer in chain.readers:
        rows = weights[layer.name]
        places = np.searchsorted(chain.atoms, labels[layer.source][layer.columns])
        square, energy = seen[layer.source].square[layer.columns], (rows**2).sum(axis=2)
        signal = (energy * square).sum(axis=1, keepdims=True)
        heard = np.where(signal > 0, 1.0 / np.where(signal > 0, signal, 1.0), 0.0)
        np.add.at(gain, places, energy * heard / len(rows))
        if rows.shape[1] > 1:
            largest = np.abs(rows).max(axis=2)
            power = rows.shape[2] * square * heard
            readers.append(Reader(places, largest, power, levels[layer.name]))
            np.maximum.at(column, places, largest * np.sqrt(heard))
    for name in chain.rounded:
        places, width = np.searchsorted(chain.atoms, labels[name]), seen[name].width
        if width > 0:
            tensors.append(RoundedTensor(places, seen[name]))
            np.maximum.at(loudest, places, seen[name].largest / width)
    return NoiseModel(tuple(tensors), tuple(readers), gain, loudest, column)


def watched_tensors(chains: Collection[Chain]) -> tuple[str, ...]:
    """Whose channels have to be measured."""
    names = (
        name
        for chain in chains
        for name in (*chain.rounded, *(layer.source for layer in chain.readers))
    )
    return tuple(dict.fromkeys(names))
