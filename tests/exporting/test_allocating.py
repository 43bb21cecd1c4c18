"""The search for files that fit, on files that are numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import QuantizationError
from deploykit.exporting.allocating import MOST_FILES, Writer, Written, by_file_bytes, by_size
from deploykit.quantize.measuring import Measured
from deploykit.spec.allocation import ALLOCATED_BITS, AutoBits, LayerChoices, MaxBytes, Measure
from deploykit.verify.formats import formats_for

CHOICES = tuple(
    LayerChoices(
        (f"l{place}",), weights, {bits: weights * bits for bits in ALLOCATED_BITS},
        {bits: weights / bits for bits in ALLOCATED_BITS},
    )
    for place, weights in enumerate((101, 203, 407, 809))
)  # fmt: skip
LIMIT = MaxBytes(20_000)


class Stubborn:
    """Writes files that shrink by `share` of what their integers do, from `whole` bytes on."""

    def __init__(self, whole: int, share: float) -> None:
        self.whole, self.share = whole, share
        self.sizes: list[int] = []

    def write(self, bits: Mapping[str, int]) -> Written:
        largest = sum(one.file_bytes[8] for one in CHOICES)
        saved = largest - sum(one.file_bytes[bits[one.name]] for one in CHOICES)
        self.sizes.append(self.whole - int(self.share * saved))
        (fmt,) = formats_for(("onnx",), TfliteLayout.NHWC)
        return Written(cast(Any, None), cast(Any, None), {fmt: bytes(self.sizes[-1])})


def searched(writer: Stubborn) -> int:
    auto = AutoBits(LIMIT)
    measured = Measured(Measure.MOMENTS, CHOICES, None)
    _, found = by_size(measured, auto, LIMIT, cast(Writer, writer))
    return found.tried[-1].largest_file


def test_the_smallest_file_is_what_a_refusal_tells() -> None:
    writer = Stubborn(20_900, 0.02)
    smallest = by_file_bytes(CHOICES)
    with pytest.raises(QuantizationError) as told:
        searched(writer)
    assert len(writer.sizes) <= MOST_FILES
    least = Stubborn(20_900, 0.02).write(smallest.bits(0)).largest
    assert writer.sizes[-1] == least
    assert f"takes {least:,} bytes, {int(smallest.costs[0]):,} of them integers" in str(told.value)


def test_a_file_that_fits_is_found_in_a_few_tries() -> None:
    writer = Stubborn(20_900, 0.9)
    assert searched(writer) == writer.sizes[-1] <= LIMIT.size_bytes
    assert len(writer.sizes) < MOST_FILES
