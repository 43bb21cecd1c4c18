"""Are rows of layers as fast as a width table predicts, and is what it aligns never slower?"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from bounds import Bound, print_bounds
from width_models import Layer, WidthModel, row, separable
from width_timing import Bench, Times, least_of

from deploykit.graph.widths.choose import Use, best_width
from deploykit.graph.widths.host import Element, Runtime
from deploykit.graph.widths.table import LayerKind, Side, WidthTable
from deploykit.spec.arrays import FloatArray

SLOWER = 1.03
"""Measured ratio from which an aligned row counts as slower."""
ROUNDS, PASSES, GROUP = 8, 3, 8
ALIGNED, BETWEEN = "aligned", "aligned, ends unlucky"
SLOWER_ALLOWED = {ALIGNED: 0.0, BETWEEN: 0.1}
SHORT_US = 40.0
"""A row under this is mostly what the runtime does around its layers."""
SIDES = {
    LayerKind.SPATIAL: (7, 14, 28),
    LayerKind.POINTWISE: (7, 14, 28),
    LayerKind.DEPTHWISE: (7, 14, 28),
    LayerKind.LINEAR: (0,),
}


@dataclass(frozen=True)
class Case:
    """A row of layers, and the same with other widths inside. Ratios: other time / its time.

    time_us: of the row as it is.
    """

    kind: str
    side: int
    widths: tuple[int, ...]
    other: tuple[int, ...]
    how: str
    predicted: float
    measured: float = float("nan")
    time_us: float = float("nan")


def validate(arguments: argparse.Namespace) -> int:
    """Draw rows, time them, print; 1 if alignment made any of them slower."""
    table = WidthTable.read(arguments.table)
    rng = np.random.default_rng(arguments.seed)
    drawn = list(draw(table, rng, arguments.cases))
    runtime = Runtime(table.target.partition("-")[0])
    element = Element(table.target.rpartition("-")[2])
    with tempfile.TemporaryDirectory(prefix="deploykit-widths-") as folder:
        bench = Bench(runtime, element, Path(folder), ROUNDS)
        cases = [
            timed
            for start in range(0, len(drawn), GROUP)
            for timed in measured(bench, start, drawn[start : start + GROUP])
        ]
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    if arguments.raise_margins:
        raise_margins(arguments.table, cases)
    return report(table, cases)


def raise_margins(path: Path, cases: Sequence[Case]) -> None:
    """No gain is believed in the table that its own predictions have missed by."""
    record = json.loads(path.read_text(encoding="utf-8"))
    for kind in LayerKind:
        entry = record["kinds"][kind.value]
        missed = float(np.quantile(errors(compared(cases, kind)), 0.95))
        entry["margin"] = round(max(entry["margin"], missed), 4)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def compared(cases: Sequence[Case], kind: LayerKind) -> list[Case]:
    """Those of a kind whose layers outweigh what the runtime does around them."""
    least = 0.0 if kind is LayerKind.LINEAR else SHORT_US
    return [one for one in cases if one.kind == kind.value and one.time_us >= least]


def errors(cases: Sequence[Case]) -> FloatArray:
    """|ln(predicted / measured)| of each."""
    ratios = np.array([one.predicted / one.measured for one in cases])
    return np.asarray(np.abs(np.log(ratios)))


def draw(table: WidthTable, rng: np.random.Generator, count: int) -> Iterator[Case]:
    """Rows of four layers with random widths: rounded up to 8 or 16, and aligned by the table.

    The ends of every other row are multiples of 16, as where a whole network is aligned; the other
    rows stand between tensors that cannot be.
    """
    for kind in LayerKind:
        for number in range(count):
            side = int(rng.choice(SIDES[kind]))
            top = int(rng.choice((24, 72, 200)))
            widths = tuple(int(width) for width in rng.integers(3, top + 1, 5))
            lucky = number % 2 == 0
            if lucky:
                first, last = (-(-c // 16) * 16 for c in (widths[0], widths[-1]))
                widths = (first, *widths[1:-1], last)
            for step in (8, 16):
                rounded = (widths[0], *(-(-c // step) * step for c in widths[1:-1]), widths[-1])
                if rounded != widths:
                    yield case(table, kind, side, widths, rounded, f"multiple of {step}")
            aligned = align(table, kind, side, widths)
            if aligned != widths:
                yield case(table, kind, side, widths, aligned, ALIGNED if lucky else BETWEEN)


def align(table: WidthTable, kind: LayerKind, side: int, widths: Sequence[int]) -> tuple[int, ...]:
    """Inner widths, one after the other, each as best_width says."""
    aligned = list(widths)
    for place in range(1, len(widths) - 1):
        uses = tensor_uses(kind, side, aligned, place)
        aligned[place] = best_width(aligned[place], None, uses, table)
    return tuple(aligned)


def tensor_uses(kind: LayerKind, side: int, widths: Sequence[int], place: int) -> tuple[Use, ...]:
    """Layers that touch the tensor at widths[place]; of separable rows the odd ones are deep."""
    positions = max(side, 1) ** 2
    dense = LayerKind.POINTWISE if kind is LayerKind.DEPTHWISE else kind
    weight = positions * (9.0 if kind is LayerKind.SPATIAL else 1.0)
    uses = (
        Use(dense, Side.OUTPUTS, widths[place - 1], weight),
        Use(dense, Side.INPUTS, widths[place + 1], weight),
    )
    if kind is LayerKind.DEPTHWISE and place % 2:
        return (*uses, Use(LayerKind.DEPTHWISE, Side.OUTPUTS, widths[place], positions * 9.0))
    return uses


def case(
    table: WidthTable,
    kind: LayerKind,
    side: int,
    widths: tuple[int, ...],
    other: tuple[int, ...],
    how: str,
) -> Case:
    """With the ratio that the table predicts."""
    before, after = (row_cost(table, kind, side, chosen) for chosen in (widths, other))
    return Case(kind.value, side, widths, other, how, after / before)


def row_cost(table: WidthTable, kind: LayerKind, side: int, widths: Sequence[int]) -> float:
    """Predicted time of all layers of a row."""
    model_of = model(kind, side, widths)
    return sum(
        table.cost(layer_kind(layer), layer.inputs, layer.outputs)
        * max(side, 1) ** 2
        * max(layer.kernel, 1) ** 2
        for layer in model_of.layers
    )


def layer_kind(layer: Layer) -> LayerKind:
    """Which of the table's kinds it is."""
    if layer.groups > 1:
        return LayerKind.DEPTHWISE
    by_kernel = {0: LayerKind.LINEAR, 1: LayerKind.POINTWISE, 3: LayerKind.SPATIAL}
    return by_kernel[layer.kernel]


def measured(bench: Bench, start: int, cases: Sequence[Case]) -> Iterator[Case]:
    """The cases with their measured ratios; pairs are timed in the same rounds."""
    models = {
        f"{start + place}-{which}": model(LayerKind(one.kind), one.side, widths)
        for place, one in enumerate(cases)
        for which, widths in (("before", one.widths), ("after", one.other))
    }
    times: Times = least_of(*(bench.least(models) for _ in range(PASSES)))
    for place, one in enumerate(cases):
        before, after = (times[f"{start + place}-{which}"] for which in ("before", "after"))
        yield replace(one, measured=after / before, time_us=before / 1000)


def model(kind: LayerKind, side: int, widths: Sequence[int]) -> WidthModel:
    """The row as a model."""
    if kind is LayerKind.DEPTHWISE:
        return separable(side, widths)
    return row(kind, side, widths)


def report(table: WidthTable, cases: Sequence[Case]) -> int:
    """Correlation of log ratios, error of the prediction, and what alignment did."""
    print(f"{table.target}: {len(cases)} comparisons")
    for kind in LayerKind:
        of_kind = compared(cases, kind)
        predicted = np.log([one.predicted for one in of_kind])
        truth = np.log([one.measured for one in of_kind])
        error = errors(of_kind)
        print(
            f"  {kind.value}: correlation {np.corrcoef(predicted, truth)[0, 1]:.3f}, error median "
            f"{np.median(error):.1%}, 95 % {np.quantile(error, 0.95):.1%} ({len(of_kind)} of "
            f"{sum(one.kind == kind.value for one in cases)} pairs: the others are too short)"
        )
    bounds = []
    for how in sorted({one.how for one in cases}):
        ratios = np.array([one.measured for one in cases if one.how == how])
        slower = float(np.mean(ratios > SLOWER))
        print(
            f"  {how}: time {np.exp(np.mean(np.log(ratios))):.3f} (geometric mean of {len(ratios)}"
            f"; {ratios.min():.3f} .. {ratios.max():.3f}), slower in {slower:.1%}"
        )
        if how in SLOWER_ALLOWED:
            name = f"share of rows over 3 % slower, {how}"
            bounds.append(Bound(name, slower, SLOWER_ALLOWED[how]))
    return print_bounds(bounds)
