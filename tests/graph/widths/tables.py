"""Width tables for tests: staircases that a reader can work out, and random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from deploykit.graph.widths.table import PERIOD, Curve, KindCosts, LayerKind, WidthTable

WIDTHS = tuple(range(1, 2 * PERIOD + 1))


def staircase(tile: int, penalty: float = 1.0) -> Curve:
    """e(c) = c rounded up to `tile`, times `penalty` where c is no multiple of it."""
    return Curve(
        WIDTHS,
        tuple(-(-c // tile) * tile * (penalty if c % tile else 1.0) for c in WIDTHS),
    )


def table_of(curve: Curve, margin: float = 0.02) -> WidthTable:
    """The same curve on both sides of every kind; a depthwise MAC takes five times as long."""
    costs = {
        kind: KindCosts(64, 5.0, margin, None, curve)
        if kind is LayerKind.DEPTHWISE
        else KindCosts(64, 1.0, margin, curve, curve)
        for kind in LayerKind
    }
    return WidthTable("test", "runtime 1", "processor", frozenset(), "2026-01-01", costs)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Time somewhere between half and twice the width, alike at the same place in a tile."""
    tile = draw(st.lists(st.floats(0.5, 2.0), min_size=16, max_size=16))
    shares = tile * (len(WIDTHS) // len(tile))
    return Curve(WIDTHS, tuple(c * share for c, share in zip(WIDTHS, shares, strict=True)))


@st.composite
def random_tables(draw: st.DrawFn) -> WidthTable:
    """Different curves for every kind and side."""
    costs = {
        kind: KindCosts(
            draw(st.sampled_from((64, 256))),
            draw(st.floats(0.2, 20.0)),
            draw(st.sampled_from((0.0, 0.02, 0.1))),
            None if kind is LayerKind.DEPTHWISE else draw(curves()),
            draw(curves()),
        )
        for kind in LayerKind
    }
    return WidthTable("test", "runtime 1", "processor", frozenset(), "2026-01-01", costs)
