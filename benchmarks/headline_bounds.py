"""What headline.py claims."""

from __future__ import annotations

from collections.abc import Sequence

from bounds import Bound
from headline_forms import AUTO, FLOAT, INT8, RUNTIMES, SMALL
from headline_subjects import BAYESIAN, DENSE, RIVAL
from headline_table import SEED_WIDTH, Table, seeds

HEADLINE_WIDTH = 32
"""Of the ResNet-18 that is claimed for."""


def bounds_of(tables: Sequence[Table]) -> list[Bound]:
    """What is claimed, and parity of every row."""
    found: list[Bound] = []
    for table in tables:
        if table.width == HEADLINE_WIDTH:
            found += headline_bounds(table)
        elif not table.width:
            found += lenet_bounds(table)
        found += parity_bounds(table)
    return found + seed_bounds(tables)


def seed_bounds(tables: Sequence[Table]) -> list[Bound]:
    """Of the mean over seeds; none where there are not several of all three."""
    spread = seeds(tables, FLOAT)
    if not {DENSE, BAYESIAN, RIVAL} <= spread.keys():
        return []
    dense, bayesian, rival = (100 * spread[name][0] for name in (DENSE, BAYESIAN, RIVAL))
    name = f"width {SEED_WIDTH}, mean of seeds: pruned"
    return [
        Bound(f"{name}, points under dense", dense - bayesian, 0.5),
        Bound(f"{name}, points over the rival of as many weights",
              bayesian - rival, 0, "at least"),
    ]  # fmt: skip


def unjudged(tables: Sequence[Table]) -> list[str]:
    """What is claimed of networks that are not among these."""
    widths = {table.width for table in tables}
    claims = [
        ("LeNet-5", 0 in widths),
        (f"ResNet-18, width {HEADLINE_WIDTH}", HEADLINE_WIDTH in widths),
        (f"seeds of width {SEED_WIDTH}", bool(seed_bounds(tables))),
    ]
    return [name for name, judged in claims if not judged]


def headline_bounds(table: Table) -> list[Bound]:
    """Of the ResNet-18 of HEADLINE_WIDTH."""
    pruned, int8 = table.row(BAYESIAN, FLOAT), table.row(BAYESIAN, INT8)
    auto, small = table.row(BAYESIAN, AUTO), table.row(BAYESIAN, SMALL)
    name = table.subject
    return [
        Bound(f"{name}: pruned, points under dense", table.points_under(pruned), 0.3),
        Bound(f"{name}: pruned, times fewer parameters",
              table.dense.parameters / pruned.parameters, 3.2, "at least"),
        Bound(f"{name}: pruned, times fewer MACs", table.dense.macs / pruned.macs, 2, "at least"),
        *(
            Bound(f"{name}: pruned int8, times smaller, {runtime}",
                  table.smaller(int8, runtime), 12, "at least")
            for runtime in RUNTIMES
        ),
        *(
            Bound(f"{name}: pruned int8, times faster, low end, {runtime}",
                  int8.timing[runtime].low, 4, "at least")
            for runtime in RUNTIMES
        ),
        Bound(f"{name}: auto, times smaller, ORT", table.smaller(auto, "ORT"), 20, "at least"),
        Bound(f"{name}: auto, small, times smaller, LiteRT",
              table.smaller(small, "LiteRT"), 20, "at least"),
        Bound(f"{name}: auto, points under dense", table.points_under(auto), 0.5),
        Bound(f"{name}: auto, small, points under dense, LiteRT",
              table.points_under(small, "LiteRT"), 0.5),
    ]  # fmt: skip


def lenet_bounds(table: Table) -> list[Bound]:
    """Of the tempered LeNet-5."""
    name = next(row.network for row in table.rows if row.network.startswith(BAYESIAN))
    auto, small = table.row(name, AUTO), table.row(name, SMALL)
    return [
        Bound("LeNet-5: auto, times smaller, ORT", table.smaller(auto, "ORT"), 40, "at least"),
        Bound("LeNet-5: auto, small, times smaller, LiteRT",
              table.smaller(small, "LiteRT"), 40, "at least"),
        Bound("LeNet-5: auto, points under dense", table.points_under(auto), 2),
        Bound("LeNet-5: auto, small, points under dense, LiteRT",
              table.points_under(small, "LiteRT"), 2),
    ]  # fmt: skip


def parity_bounds(table: Table) -> list[Bound]:
    """LiteRT's own kernel for stored 4-bit convolutions rounds otherwise: SMALL is not held."""
    held = [(row, runtime) for row in table.rows for runtime in RUNTIMES
            if (row.form, runtime) != (SMALL, "LiteRT")]  # fmt: skip
    compared = sum(row.integers[runtime] for row, runtime in held)
    differing = sum(row.differing[runtime] for row, runtime in held)
    return [Bound(f"{table.subject}: differing of {compared:,} integers", differing, 0)]
