"""Turns of the models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.bench.order import abba_order

FILES = ("a", "b", "c")


def test_pairs_mirror() -> None:
    order = abba_order(FILES, 2, seed=0)
    assert order[:3] == tuple(reversed(order[3:]))


@given(rounds=st.integers(1, 12), seed=st.integers(0, 99), models=st.integers(1, 3))
def test_everybody_runs_equally_often(rounds: int, seed: int, models: int) -> None:
    order = abba_order(FILES[:models], rounds, seed)
    assert [order.count(model) for model in FILES[:models]] == [rounds] * models


@given(rounds=st.integers(1, 6).map(lambda half: 2 * half), seed=st.integers(0, 99))
def test_mean_place_is_equal(rounds: int, seed: int) -> None:
    order = abba_order(FILES, rounds, seed)
    places = [sum(i for i, m in enumerate(order) if m == model) for model in FILES]
    assert len(set(places)) == 1


@pytest.mark.parametrize("seed", [0, 5])
def test_seed_decides(seed: int) -> None:
    assert abba_order(FILES, 8, seed) == abba_order(FILES, 8, seed)
    assert len({abba_order(FILES, 8, s) for s in range(10)}) > 1
