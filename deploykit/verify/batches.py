"""Samples through a file whose batch is dynamic: in batches of one, of three, and of more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.quantized import Batch

FIRST = (1, 3)
LARGEST = 64
"""Bounds what a runtime holds at a time."""


def in_batches(batch: Batch, run: Callable[[Tensors], Tensors], inputs: Tensors) -> Tensors:
    """What `run` gives for all samples [N, ...], joined along axis 0.

    A dynamic batch is proved at several sizes: of the samples the first runs alone, the next three
    together, the others in batches of at most LARGEST.
    """
    if batch is Batch.FIXED:
        return run(inputs)
    samples = len(next(iter(inputs.values())))
    parts: dict[str, list[AnyArray]] = {}
    for start, stop in _spans(samples):
        found = run({name: values[start:stop] for name, values in inputs.items()})
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _spans(samples: int) -> list[tuple[int, int]]:
    """_spans(70) -> [(0, 1), (1, 4), (4, 68), (68, 70)]"""
    spans, start = [], 0
    sizes = list(FIRST)
    while start < samples:
        stop = min(start + (sizes.pop(0) if sizes else LARGEST), samples)
        spans.append((start, stop))
        start = stop
    return spans
