"""Labelled or unlabelled inputs for calibration and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import GraphInputs, count_samples, some_samples


@dataclass(frozen=True)
class Samples:
    """Inputs [N, C, H, W] (or [N, F]) of a network's one input or of each by name; labels [N]."""

    inputs: GraphInputs
    labels: AnyArray | None = None

    def __len__(self) -> int:
        return count_samples(self.inputs)

    def head(self, count: int) -> Samples:
        """The first `count` samples."""
        first = slice(count)
        labels = None if self.labels is None else self.labels[first]
        return Samples(some_samples(self.inputs, first), labels)
