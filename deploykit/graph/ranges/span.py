"""What is known of every channel of one tensor: its range, and how far it may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.spec.arrays import Float64Array


@dataclass(frozen=True)
class Span:
    """low, high: [C], every value of a channel lies between. error: [C, K], K kinds of error.

    error[c, k] bounds |changed value - value| at any position, for one kind k of change.
    """

    low: Float64Array
    high: Float64Array
    error: Float64Array

    @property
    def largest(self) -> Float64Array:
        """[C], the largest magnitude a channel can have."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def within(self, limit: float) -> Span:
        """The same with magnitudes of at most `limit`."""
        low, high = np.maximum(self.low, -limit), np.minimum(self.high, limit)
        return Span(low, high, self.error)

    def including(self, value: float) -> Span:
        """The same where some positions hold `value` instead."""
        return Span(np.minimum(self.low, value), np.maximum(self.high, value), self.error)

    def at(self, channels: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.intp]]) -> Span:
        """Some channels, in the order given."""
        index = np.asarray(channels, dtype=np.intp)
        return Span(self.low[index], self.high[index], self.error[index])


def points(values: Float64Array, kinds: int) -> Span:
    """Constant channels [C], exactly known."""
    return Span(values, values, np.zeros((len(values), kinds)))


def anything(channels: int, error: Float64Array) -> Span:
    """Channels of which nothing is known but a bound [K] of their errors."""
    spread = np.broadcast_to(error, (channels, len(error)))
    return Span(np.full(channels, -np.inf), np.full(channels, np.inf), spread)


def hull(spans: Sequence[Span]) -> Span:
    """The smallest ranges that hold all of several spans of equal size."""
    return Span(
        np.min([span.low for span in spans], axis=0),
        np.max([span.high for span in spans], axis=0),
        np.max([span.error for span in spans], axis=0),
    )


def product(left: Span, right: Span) -> Span:
    """x * y. |x'y' - xy| <= |x| dy + |y| dx + dx dy. 0 * infinity, from an unknown range, is 0."""
    with np.errstate(invalid="ignore"):
        corners = [
            np.nan_to_num(x * y, nan=0.0, posinf=np.inf, neginf=-np.inf)
            for x in (left.low, left.high)
            for y in (right.low, right.high)
        ]
        error = (
            _times(left.largest, right.error)
            + _times(right.largest, left.error)
            + _times(left.error, right.error)
        )
    return Span(np.minimum.reduce(corners), np.maximum.reduce(corners), error)


def _times(size: Float64Array, error: Float64Array) -> Float64Array:
    wide = size[:, None] if size.ndim == 1 else size
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(wide * error, nan=0.0, posinf=np.inf)
