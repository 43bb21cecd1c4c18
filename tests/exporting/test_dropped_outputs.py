"""Channels that left an output are found by their values."""

from __future__ import annotations

import numpy as np

from deploykit.exporting.dropped_outputs import KeptChannels, kept_channels, without_dropped
from deploykit.spec.arrays import AnyArray
from tests.onnx_files import normal


def runs(*dead: int) -> list[dict[str, AnyArray]]:
    """Two runs of an output [2, 5, 3] whose dead channels hold 0.5."""
    values = [normal(2, 5, 3, seed=seed) for seed in range(2)]
    for one in values:
        one[:, list(dead)] = 0.5
    return [{"y": one} for one in values]


def cut(before: list[dict[str, AnyArray]], *kept: int) -> list[dict[str, AnyArray]]:
    return [{"y": one["y"][:, list(kept)]} for one in before]


def test_constant_channels_that_went_are_found() -> None:
    before = runs(0, 3)
    after = cut(before, 1, 2, 4)
    kept = kept_channels(before, after)
    assert kept == {"y": KeptChannels(1, (1, 2, 4))}
    assert np.array_equal(without_dropped(before[0], kept)["y"], after[0]["y"])


def test_an_output_of_the_same_shape_is_left_alone() -> None:
    before = runs(0)
    assert kept_channels(before, before) == {}
    assert without_dropped(before[0], {})["y"] is before[0]["y"]


def test_a_channel_that_moved_is_no_constant() -> None:
    before = runs(0)
    assert kept_channels(before, cut(before, 2, 3, 4)) == {}


def test_other_values_or_another_order_are_no_match() -> None:
    before = runs(0, 3)
    assert kept_channels(before, cut(before, 2, 1, 4)) == {}
    assert kept_channels(before, [{"y": one["y"] + 1} for one in cut(before, 1, 2, 4)]) == {}
