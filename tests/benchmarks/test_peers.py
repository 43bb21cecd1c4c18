"""The comparison with peers: bounds, records, and what counts as an error."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from peers import STRICT, bounds_of, row_of
from peers_measure import Row, Side, least_sqnr
from removal_latency_timing import Ratio

EVEN = Ratio(1.0, 0.99, 1.01)
ROW = Row(
    "net", "litert", Side(10, 1.0, 20.0, 3.0), Side(12, 2.0, 19.0, 4.0),
    Ratio(0.5, 0.49, 0.51), Ratio(2.0, 1.9, 2.1), Ratio(1.0, 0.9, 1.1), 2.0, 1.0,
)  # fmt: skip


def test_a_row_survives_json() -> None:
    assert row_of(asdict(ROW)) == ROW


def test_bounds_hold_by_the_lower_end_and_the_mean() -> None:
    slower = replace(ROW, network="slow", ratio=Ratio(1.1, 1.03, 1.2))
    found = {bound.name: bound for bound in bounds_of([ROW, slower])}
    assert found["net, litert: ours over theirs, lower end"].holds
    assert not found["slow, litert: ours over theirs, lower end"].holds
    mean = found["litert: ours over theirs, geometric mean of 2"]
    assert mean.value == pytest.approx((0.5 * 1.1) ** 0.5)


def test_the_network_that_peers_slow_down_has_bounds_of_its_own() -> None:
    strict = replace(ROW, network=STRICT)
    held = [bound.holds for bound in bounds_of([strict]) if STRICT in bound.name]
    assert held == [True, False, True, True]
    worse = replace(strict, ours=replace(ROW.ours, sqnr_db=18.9))
    assert not bounds_of([worse])[-1].holds


def test_the_worst_output_counts() -> None:
    signal = np.full((1, 4), 10.0, np.float32)
    assert least_sqnr([signal, signal], [signal + 1, signal + 0.1]) == pytest.approx(20.0)


def test_outputs_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="an output is"):
        least_sqnr([np.zeros((1, 4), np.float32)], [np.zeros((1, 5), np.float32)])
