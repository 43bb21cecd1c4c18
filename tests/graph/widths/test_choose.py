"""best_width against a slow search, on staircases, and its promises on random tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.widths.choose import Use, best_width, largest_width, predicted_cost
from deploykit.graph.widths.joint import joint
from deploykit.graph.widths.table import Curve, LayerKind, Side, WidthTable
from tests.graph.widths.tables import WIDTHS, random_tables, staircase, table_of

MAKER = Use(LayerKind.SPATIAL, Side.OUTPUTS, 64, 9.0)
READER = Use(LayerKind.SPATIAL, Side.INPUTS, 64, 9.0)
USES = st.lists(
    st.builds(
        Use,
        kind=st.sampled_from(LayerKind),
        side=st.sampled_from(Side),
        other=st.integers(1, 300),
        weight=st.floats(1.0, 1e6),
        beside=st.integers(0, 40),
        repeat=st.sampled_from((1, 1, 1, 49)),
    ),
    min_size=1,
    max_size=4,
)
AVAILABLE = st.none() | st.integers(0, 200)


@pytest.mark.parametrize(
    ("kept", "largest"),
    [(1, 16), (16, 16), (17, 32), (60, 64), (65, 80), (96, 96), (97, 128), (129, 160), (193, 256)],
)
def test_growth_is_limited(kept: int, largest: int) -> None:
    assert largest_width(kept) == largest


def test_growth_is_at_most_a_third_or_to_the_next_tile() -> None:
    for kept in range(1, 3000):
        grown = largest_width(kept)
        assert kept <= grown <= max(kept + kept / 3, -(-kept // 16) * 16)
        assert {largest_width(width) for width in range(kept, grown + 1)} == {grown}


@pytest.mark.parametrize(
    ("kept", "available", "width"),
    [(60, None, 64), (60, 64, 64), (60, 62, 60), (60, 60, 60), (64, 128, 64), (33, 64, 40)],
)
def test_unlucky_width_goes_to_the_next_multiple_of_eight_where_there_is_room(
    kept: int, available: int | None, width: int
) -> None:
    table = table_of(staircase(8, penalty=1.4))
    assert best_width(kept, available, (MAKER, READER), table) == width


def test_an_unlucky_tensor_next_to_another_is_aligned_too() -> None:
    table = table_of(staircase(8, penalty=1.4))
    neighbours = (
        Use(LayerKind.POINTWISE, Side.OUTPUTS, 61, 1.0),
        Use(LayerKind.POINTWISE, Side.INPUTS, 59, 1.0),
    )
    assert best_width(60, None, neighbours, table) == 64


def test_a_slightly_slower_but_smaller_width_is_a_tie() -> None:
    effective = {57: 90.0, 60: 64.4, 64: 64.0}
    curve = Curve(WIDTHS, tuple(effective.get(c, float(max(c, 80))) for c in WIDTHS))
    assert best_width(57, None, (MAKER, READER), table_of(curve)) == 60


def test_stairs_without_a_penalty_are_ties_and_stay_small() -> None:
    table = table_of(staircase(16))
    assert [best_width(kept, None, (MAKER, READER), table) for kept in (5, 17, 60)] == [5, 17, 60]


def test_a_gain_within_the_margin_is_not_believed() -> None:
    curve = staircase(8, penalty=1.05)
    assert best_width(60, None, (MAKER, READER), table_of(curve, margin=0.02)) == 64
    assert best_width(60, None, (MAKER, READER), table_of(curve, margin=0.10)) == 60


def test_channels_beside_and_repeats_count() -> None:
    table = table_of(staircase(8, penalty=1.4))
    concat = Use(LayerKind.POINTWISE, Side.INPUTS, 64, 1.0, beside=3)
    assert best_width(60, None, (concat,), table) == 61
    flattened = Use(LayerKind.LINEAR, Side.INPUTS, 64, 1.0, repeat=4)
    assert best_width(15, None, (flattened,), table) == 16
    assert best_width(14, None, (flattened,), table) == 14


def test_a_layer_on_the_other_side_does_not_pay_for_depthwise() -> None:
    use = Use(LayerKind.DEPTHWISE, Side.INPUTS, 1000, 9.0)
    assert use.cost(60, table_of(staircase(16))) == 9 * 5 * 64


def slow_search(kept: int, available: int | None, layers: Sequence[Use], table: WidthTable) -> int:
    """The definition, width by width."""

    def total(width: int, share: float) -> float:
        time = 0.0
        for use in layers:
            here = use.beside + use.repeat * width
            cost = table.side_cost(use.kind, use.side, here, use.other)
            time += use.weight * cost * (1 - share * table.costs[use.kind].margin)
        return time

    allowed = [
        width
        for width in range(kept, largest_width(kept) + 1)
        if width == kept or available is None or width <= available
    ]
    least = min(total(width, 0) for width in allowed)
    if least >= total(kept, 1):
        return kept
    return min(width for width in allowed if total(width, 0) <= 1.01 * least)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), AVAILABLE, USES, random_tables())
def test_equals_the_slow_search(
    kept: int, available: int | None, layers: list[Use], table: WidthTable
) -> None:
    assert best_width(kept, available, layers, table) == slow_search(kept, available, layers, table)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), AVAILABLE, USES, random_tables())
def test_promises(kept: int, available: int | None, layers: list[Use], table: WidthTable) -> None:
    width = best_width(kept, available, layers, table)
    assert kept <= width <= largest_width(kept)
    assert available is None or width <= max(kept, available)
    assert predicted_cost(width, layers, table) <= predicted_cost(kept, layers, table)
    assert best_width(width, available, layers, table) == width


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WidthTable.names()).map(WidthTable.load), st.integers(1, 400), AVAILABLE, USES
)
def test_promises_hold_on_the_shipped_tables(
    table: WidthTable, kept: int, available: int | None, layers: list[Use]
) -> None:
    width = best_width(kept, available, layers, table)
    assert kept <= width <= largest_width(kept)
    assert predicted_cost(width, layers, table) <= predicted_cost(kept, layers, table)
    assert best_width(width, available, layers, table) == width


def test_joined_tables_weigh_what_each_runtime_gains_and_loses() -> None:
    even = table_of(staircase(1))
    assert best_width(60, None, (MAKER, READER), even) == 60
    for penalty, width in ((1.4, 64), (1.1, 60)):
        stepped = table_of(staircase(8, penalty=penalty), margin=0.0)
        assert best_width(60, None, (MAKER, READER), stepped) == 64
        assert best_width(60, None, (MAKER, READER), joint([stepped, even])) == width


def test_a_joined_cost_is_the_mean() -> None:
    parts = table_of(staircase(8, penalty=1.4)), table_of(staircase(1))
    costs = [predicted_cost(60, (MAKER, READER), part) for part in parts]
    assert predicted_cost(60, (MAKER, READER), joint(parts)) == pytest.approx(sum(costs) / 2)
    assert joint(parts[:1]) is parts[0]
