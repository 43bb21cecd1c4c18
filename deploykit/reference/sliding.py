"""Sliding windows over the last axes of an array, any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deploykit.reference.window import output_length
from deploykit.spec.operators import Window

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Sliding:
    """Geometry of a window, one number per spatial axis. begins, ends: padded positions."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @staticmethod
    def over_images(window: Window) -> Sliding:
        """The same window over (H, W)."""
        top, left, bottom, right = window.pads
        return Sliding(
            window.kernel, window.strides, window.dilations, (top, left), (bottom, right)
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """Positions from the first that a window reads to the last, both included."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple(dilation * (size - 1) + 1 for size, dilation in pairs)

    def sizes(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """How many windows fit along each axis of the given lengths."""
        return tuple(
            output_length(length, size, stride, begin + end, dilation)
            for length, size, stride, begin, end, dilation in zip(
                lengths,
                self.kernel,
                self.strides,
                self.begins,
                self.ends,
                self.dilations,
                strict=True,
            )
        )

    def pad(self, values: npt.NDArray[Scalar], fill: float) -> npt.NDArray[Scalar]:
        """The values with `fill` around the spatial axes; the same array where nothing is added."""
        if not any(self.begins) and not any(self.ends):
            return values
        lengths = values.shape[-len(self.kernel) :]
        padded = np.full(
            (
                *values.shape[: -len(lengths)],
                *(
                    begin + length + end
                    for begin, length, end in zip(self.begins, lengths, self.ends, strict=True)
                ),
            ),
            fill,
            dtype=values.dtype,
        )
        inside = (slice(b, b + n) for b, n in zip(self.begins, lengths, strict=True))
        place: tuple[Any, ...] = (Ellipsis, *inside)
        padded[place] = values
        return padded

    def taps(
        self, padded: npt.NDArray[Scalar], sizes: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Scalar]]]:
        """For each kernel position the view [..., *sizes] of what it reads of padded values."""
        for position in product(*map(range, self.kernel)):
            spots = zip(position, self.dilations, self.strides, sizes, strict=True)
            seen = (
                slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
                for at, dilation, stride, size in spots
            )
            place: tuple[Any, ...] = (Ellipsis, *seen)
            yield position, padded[place]

    def patches(self, padded: npt.NDArray[Scalar], sizes: tuple[int, ...]) -> npt.NDArray[Scalar]:
        """The im2col view [..., *kernel, *sizes] of padded values; nothing is copied."""
        steps = padded.strides[-len(self.kernel) :]
        return np.lib.stride_tricks.as_strided(
            padded,
            shape=(*padded.shape[: -len(steps)], *self.kernel, *sizes),
            strides=(
                *padded.strides[: -len(steps)],
                *(step * dilation for step, dilation in zip(steps, self.dilations, strict=True)),
                *(step * stride for step, stride in zip(steps, self.strides, strict=True)),
            ),
            writeable=False,
        )
