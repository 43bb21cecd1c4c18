"""Labelled images as tensors, and how many of them a network gets right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class LabelledImages:
    """Images [N, C, H, W] and labels [N] as tensors."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Any) -> LabelledImages:
        """Share the memory of numpy images: anything with `inputs` and `labels`."""
        return cls(torch.from_numpy(images.inputs), torch.from_numpy(images.labels))

    def shuffled(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches in random order; what is left over waits for another epoch."""
        order = torch.randperm(len(self.labels), generator=generator)
        for step in range(len(order) // batch):
            chosen = order[step * batch : (step + 1) * batch]
            yield self.inputs[chosen], self.labels[chosen]


def hits(model: nn.Module, images: LabelledImages) -> Tensor:
    """Whether each is classified correctly in eval mode, bool [N]."""
    model.eval()
    predicted = torch.empty_like(images.labels)
    with torch.no_grad():
        for start in range(0, len(images.labels), EVALUATION_BATCH):
            chosen = slice(start, start + EVALUATION_BATCH)
            predicted[chosen] = model(images.inputs[chosen]).argmax(dim=1)
    return predicted == images.labels


def accuracy(model: nn.Module, images: LabelledImages) -> float:
    """Fraction classified correctly in eval mode."""
    return int(hits(model, images).sum()) / len(images.labels)
