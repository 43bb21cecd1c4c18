"""Labelled samples as tensors, and which of them a network gets right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class LabelledSamples:
    """Inputs [N, ...] and labels [N]."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, arrays: Any) -> LabelledSamples:
        """Share the memory of numpy arrays: anything with `inputs` and `labels`."""
        return cls(torch.from_numpy(arrays.inputs), torch.from_numpy(arrays.labels))

    def shuffled(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches in random order; what is left over waits for another epoch."""
        order = torch.randperm(len(self.labels), generator=generator)
        for step in range(len(order) // batch):
            chosen = order[step * batch : (step + 1) * batch]
            yield self.inputs[chosen], self.labels[chosen]


def hits(model: nn.Module, samples: LabelledSamples) -> Tensor:
    """Whether each is classified correctly in eval mode, bool [N]."""
    model.eval()
    predicted = torch.empty_like(samples.labels)
    with torch.no_grad():
        for start in range(0, len(samples.labels), EVALUATION_BATCH):
            chosen = slice(start, start + EVALUATION_BATCH)
            predicted[chosen] = model(samples.inputs[chosen]).argmax(dim=1)
    return predicted == samples.labels


def accuracy(model: nn.Module, samples: LabelledSamples) -> float:
    """Fraction classified correctly in eval mode."""
    return int(hits(model, samples).sum()) / len(samples.labels)
