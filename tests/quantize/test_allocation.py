"""Allocations under a limit against all there are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from deploykit.quantize import allocation
from deploykit.quantize.allocation import front
from deploykit.spec.allocation import ALLOCATED_BITS, LayerChoices


def choice(name: str, weights: int, losses: Mapping[int, float]) -> LayerChoices:
    return LayerChoices((name,), weights, {b: -(-weights * b // 8) for b in losses}, losses)


def drawn(count: int, seed: int) -> list[LayerChoices]:
    rng = np.random.default_rng(seed)
    found = []
    for place in range(count):
        falling = np.sort(rng.exponential(size=len(ALLOCATED_BITS)))[::-1]
        losses = dict(zip(ALLOCATED_BITS, map(float, falling), strict=True))
        found.append(choice(f"l{place}", int(rng.integers(10, 1000)), losses))
    return found


def best_of_all(choices: Sequence[LayerChoices], budget: float) -> float:
    """Every allocation, one after another."""
    best = float("inf")
    for picks in itertools.product(*(one.file_bytes for one in choices)):
        pairs = list(zip(choices, picks, strict=True))
        if sum(one.file_bytes[bits] for one, bits in pairs) <= budget:
            best = min(best, sum(one.sensitivity[bits] for one, bits in pairs))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_no_allocation_is_less_sensitive_at_any_budget(seed: int) -> None:
    choices = drawn(4, seed)
    found = front(choices, [one.file_bytes for one in choices])
    for budget in np.linspace(found.costs[0], found.costs[-1], 7):
        place = found.within(budget)
        assert place is not None
        bits = found.bits(place)
        spent = sum(one.file_bytes[bits[one.name]] for one in choices)
        lost = sum(one.sensitivity[bits[one.name]] for one in choices)
        assert spent == found.costs[place] <= budget
        assert lost == pytest.approx(found.sensitivities[place])
        assert lost == pytest.approx(best_of_all(choices, budget))
    assert found.within(found.costs[0] - 1) is None


def test_a_long_front_is_thinned_and_stays_close(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = drawn(12, seed=1)
    whole = front(choices, [one.file_bytes for one in choices])
    monkeypatch.setattr(allocation, "LONGEST", 200)
    thin = front(choices, [one.file_bytes for one in choices])
    assert len(thin.costs) <= 201 < len(whole.costs)
    assert (thin.costs[0], thin.costs[-1]) == (whole.costs[0], whole.costs[-1])
    assert (np.diff(thin.costs) > 0).all()
    assert (np.diff(thin.sensitivities) < 0).all()
    for budget in np.linspace(whole.costs[0], whole.costs[-1], 9):
        exact, near = whole.within(budget), thin.within(budget)
        assert exact is not None and near is not None
        assert thin.sensitivities[near] <= 1.1 * whole.sensitivities[exact]


def test_widths_that_cost_the_same_are_as_wide_as_it_helps() -> None:
    """A carrier of 8 bits for all widths, and one of 4 for 3 bits."""
    window = LayerChoices(("window",), 100, dict.fromkeys(ALLOCATED_BITS, 100), {2: 9.0, 8: 1.0})
    linear = LayerChoices(("linear",), 100, {3: 50, 4: 50, 8: 100}, {3: 2.0, 4: 1.0, 8: 0.1})
    found = front([window, linear], [{2: 100, 8: 100}, linear.file_bytes])
    assert [found.bits(place) for place in range(len(found.costs))] == [
        {"window": 8, "linear": 4}, {"window": 8, "linear": 8},
    ]  # fmt: skip


def test_a_fixed_weight_counts_and_shared_ones_get_the_same_bits() -> None:
    fixed = LayerChoices(("a",), 10, {4: 5}, {}, "trained")
    shared = LayerChoices(("b", "c"), 10, {2: 3, 8: 10}, {2: 4.0, 8: 1.0})
    found = front([fixed, shared], [fixed.file_bytes, shared.file_bytes])
    assert list(found.costs) == [8, 15]
    assert found.bits(0) == {"a": 4, "b": 2, "c": 2}
