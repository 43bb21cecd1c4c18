"""What an app has to know about a model beside its tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelMetadata:
    """labels: names of the classes, in the output's order. mean, std: x = (pixel - mean) / std.

    Each may be empty; mean and std have one number, or one per channel.
    """

    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.mean)
