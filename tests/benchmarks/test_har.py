"""The wrist benchmark: means and deviations over subjects, and what misses a bound."""

from __future__ import annotations

import math

import pytest
from har import STAGES, Row, bounds_of, mean_share, spread, table

SIZES = {"int8 model.onnx": 9_000, "w4 model.tflite": 8_000}


def row(subject: int, int8: float, differing: int = 0, left: int = 400) -> Row:
    shares = {**dict.fromkeys(STAGES, 0.9), "int8": int8}
    return Row(subject, 300, shares, 1_000, left, SIZES, 5_000, differing)


def missed(*rows: Row) -> list[str]:
    return [bound.name for bound in bounds_of(rows) if not bound.holds]


def test_every_subject_counts_alike() -> None:
    rows = [row(1, 0.9), row(2, 0.8)]
    assert mean_share(rows, "int8") == pytest.approx(0.85)
    assert spread(rows, "int8") == pytest.approx(0.1 / math.sqrt(2))
    assert spread(rows[:1], "int8") == 0


def test_each_bound_can_be_missed() -> None:
    assert missed(row(1, 0.9), row(2, 0.897)) == []
    assert missed(row(1, 0.9), row(2, 0.89)) == ["int8, points under pruned, mean of 2 subjects"]
    assert missed(row(1, 0.9, differing=1)) == ["differing of 5,000 integers"]
    assert missed(row(1, 0.9, left=600)) == ["parameters removed, mean share"]


def test_the_table_has_a_line_by_subject_under_one_heading() -> None:
    heading, first, second, mean, deviation = table([row(1, 0.9), row(10, 0.8)])
    assert len(heading) == len(first) == len(second)
    assert first.split()[:2] == ["1", "300"]
    assert second.split()[5] == "0.8000"
    assert mean.split() == ["mean", "0.9000", "0.9000", "0.9000", "0.8500", "0.9000"]
    assert deviation.split()[0] == "deviation"
