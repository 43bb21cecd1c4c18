"""Labelled or unlabelled inputs for calibration and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.spec.arrays import AnyArray, Float32Array


@dataclass(frozen=True)
class Samples:
    """Inputs [N, C, H, W] (or [N, F]) float32, and labels [N] where known."""

    inputs: Float32Array
    labels: AnyArray | None = None

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def head(self, count: int) -> Samples:
        """The first `count` samples."""
        return Samples(self.inputs[:count], None if self.labels is None else self.labels[:count])
