"""Choosing golden inputs and computing what they must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.bundle import Golden
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.inputs import GraphInputs, named_inputs, repeated_samples
from deploykit.spec.quantized import IndexTensor, Quantization, QuantizedNetwork, int_range
from deploykit.spec.samples import Samples
from deploykit.verify.integers import run_reference


@dataclass(frozen=True)
class GoldenFloats:
    """Float outputs for the golden inputs, as in Golden: two of them only for the `full` ones."""

    folded: AnyArray
    masked: AnyArray
    mean_forward: AnyArray | None
    untempered: AnyArray | None = None


REAL, EXTREME, FULL_REAL, FULL_EXTREME = 32, 8, 6, 2
"""How many inputs of each kind, and for how many of each every tensor's integers are kept."""


Ranges = Mapping[str, Quantization | IndexTensor]
"""By input name, what it can hold."""


def input_ranges(network: QuantizedNetwork) -> Ranges:
    """Of every input."""
    return {
        port.name: network.indices[port.tensor]
        if port.tensor in network.indices
        else network.tensors[port.tensor].quantization
        for port in network.inputs
    }


def golden_inputs(samples: Samples, ranges: Ranges) -> GraphInputs:
    """[REAL + EXTREME, ...]: the first samples, then inputs at and beyond the quantized range.

    An array for one input, one by name for several, as the samples.

    Extreme, for a range of [low, high]: all low, all high, zero, far below, far above, a frame of
    high around low, two draws of low and high at random (seeded). Of whole numbers the first row,
    the last one, and draws of any. Fewer samples than REAL are
    repeated in turn.
    """
    generator = np.random.default_rng(0)
    real = named_inputs(repeated_samples(samples.inputs, REAL), list(ranges))
    found: dict[str, AnyArray] = {}
    for name, held in ranges.items():
        one = real[name].shape[1:]
        if isinstance(held, IndexTensor):
            extreme = _rows(one, held, generator)
        else:
            extreme = _extremes(one, held, generator)
        found[name] = np.concatenate([real[name], extreme])
    return found if isinstance(samples.inputs, Mapping) else next(iter(found.values()))


def _rows(one: tuple[int, ...], held: IndexTensor, generator: np.random.Generator) -> AnyArray:
    """[EXTREME, ...] of whole numbers: all first, all last, then any."""
    ends = [np.full(one, end) for end in (0, held.limit - 1)]
    drawn = generator.integers(0, held.limit, (EXTREME - len(ends), *one))
    return np.concatenate([np.stack(ends), drawn]).astype(held.dtype)


def _extremes(
    one: tuple[int, ...], quantization: Quantization, generator: np.random.Generator
) -> Float32Array:
    """[EXTREME, ...] for inputs of the shape `one`."""
    lowest, highest = int_range(quantization.bits)
    low = np.float32((lowest - quantization.zero_point) * quantization.scale)
    high = np.float32((highest - quantization.zero_point) * quantization.scale)
    frame = np.full(one, low, dtype=np.float32)
    if len(one) == 3:
        frame[:, [0, -1], :] = high
        frame[:, :, [0, -1]] = high
    corners = np.array([low, high], dtype=np.float32)
    extreme: list[Float32Array] = [
        np.full(one, low, dtype=np.float32),
        np.full(one, high, dtype=np.float32),
        np.zeros(one, dtype=np.float32),
        np.full(one, 100 * low - 1, dtype=np.float32),
        np.full(one, 100 * high + 1, dtype=np.float32),
        frame,
        generator.choice(corners, size=one),
        generator.choice(corners, size=one),
    ]
    return np.stack(extreme)


def full_indices() -> AnyArray:
    """Which of the golden inputs get every tensor's integers and float64 evaluation."""
    return np.concatenate([np.arange(FULL_REAL), REAL + np.arange(FULL_EXTREME)])


def make_golden(
    network: QuantizedNetwork,
    samples: Samples,
    inputs: GraphInputs,
    floats: GoldenFloats,
) -> Golden:
    """The golden file's content for `inputs` from `golden_inputs`."""
    full = full_indices()
    expected = run_reference(network, inputs, full)
    labels = None
    if samples.labels is not None:
        labels = np.take(samples.labels, np.arange(REAL), mode="wrap").astype(np.int64)
    return Golden(
        inputs, REAL, full, floats.folded, floats.masked, expected.integers, expected.outputs,
        labels, floats.mean_forward, floats.untempered,
    )  # fmt: skip
