"""Effective widths from times: which models are measured, and how their times are taken apart.

With R the reference width, t the time of a layer R -> R, b what a run costs beside its layers, and
g what one more end (pool, output) costs:

    single      b + 2 t (n + 1)            n + 1 chains at width R
    chain(c)    b + n (out(c) + in(c))     n chains R -> c -> R
    fan(c)      b + 2 g + out(c) + 3 in(c)

    t = (single - chain(R)) / 2      b = chain(R) - 2 n t      2 g = fan(R) - b - 4 t
    in(c) = (fan(c) - b - 2 g - in_and_out(c)) / 2             e_in(c) = R in(c) / t

A linear's layers are so short that ends would swamp them: its two curves are one, half the chain.
A depthwise layer is the difference between a row with it and the same row without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from width_models import WidthModel, fan, row, separable
from width_timing import Times

from deploykit.graph.widths.table import LayerKind

WIDTHS = (*range(1, 97), *range(161, 193), *range(225, 257))
"""Whole periods of the table: it draws a line through each width's place in the period."""

READERS = 3
LEAST_CHANNELS = 0.5
"""A difference of times may come out below zero where a layer takes next to none: one channel."""


@dataclass(frozen=True)
class Family:
    """One kind of layer at one size. repeats: chains (R -> c -> R) in a row."""

    kind: LayerKind
    side: int
    reference: int
    repeats: int

    @property
    def name(self) -> str:
        """Of its models, in front."""
        return f"{self.kind.value}-{self.side}"

    def widths(self, width: int, repeats: int) -> tuple[int, ...]:
        """R, c, R, c, ..., R."""
        return (self.reference, *(width, self.reference) * repeats)


FAMILIES = (
    Family(LayerKind.SPATIAL, 28, 64, 1),
    Family(LayerKind.SPATIAL, 14, 64, 2),
    Family(LayerKind.POINTWISE, 28, 64, 3),
    Family(LayerKind.POINTWISE, 14, 64, 4),
    Family(LayerKind.LINEAR, 0, 256, 6),
    Family(LayerKind.DEPTHWISE, 28, 64, 3),
    Family(LayerKind.DEPTHWISE, 14, 64, 4),
)
"""A depthwise family has the repeats of the pointwise one that is subtracted from it."""


@dataclass(frozen=True)
class Split:
    """Nanoseconds by width. layer: at the reference width on both sides; macs: of that layer."""

    layer: float
    macs: int
    inputs: Mapping[int, float]
    outputs: Mapping[int, float]

    def effective(self, times: Mapping[int, float], reference: int) -> dict[int, float]:
        """Times in channels at the reference width, LEAST_CHANNELS or more."""
        return {
            width: max(reference * time / self.layer, LEAST_CHANNELS)
            for width, time in times.items()
        }


def model_groups() -> Iterator[tuple[str, dict[str, WidthModel]]]:
    """Models that are measured together, by name, and the name of the group."""
    for family in FAMILIES:
        name, kind, side, reference = family.name, family.kind, family.side, family.reference
        repeats = family.repeats
        if kind is LayerKind.DEPTHWISE:
            yield name, {f"{name}-{c}": separable(side, family.widths(c, repeats)) for c in WIDTHS}
            continue
        chains = {f"{name}-chain-{c}": row(kind, side, family.widths(c, repeats)) for c in WIDTHS}
        chains[f"{name}-single"] = row(kind, side, family.widths(reference, repeats + 1))
        yield f"{name}-chain", chains
        if kind is not LayerKind.LINEAR:
            yield (
                f"{name}-fan",
                {f"{name}-fan-{c}": fan(kind, side, reference, c, READERS) for c in WIDTHS},
            )


def split(family: Family, times: Times) -> Split:
    """A family's times taken apart."""
    name, reference, repeats = family.name, family.reference, family.repeats
    positions = max(family.side, 1) ** 2
    if family.kind is LayerKind.DEPTHWISE:
        without = f"{LayerKind.POINTWISE.value}-{family.side}-chain"
        alone = {c: (times[f"{name}-{c}"] - times[f"{without}-{c}"]) / repeats for c in WIDTHS}
        return Split(alone[reference], positions * 9 * reference, {}, alone)
    layer = (times[f"{name}-single"] - times[f"{name}-chain-{reference}"]) / 2
    base = times[f"{name}-chain-{reference}"] - 2 * repeats * layer
    both = {c: (times[f"{name}-chain-{c}"] - base) / repeats for c in WIDTHS}
    if family.kind is LayerKind.LINEAR:
        half = {c: time / 2 for c, time in both.items()}
        return Split(layer, reference**2, half, half)
    ends = times[f"{name}-fan-{reference}"] - base - (READERS + 1) * layer
    inputs = {c: (times[f"{name}-fan-{c}"] - base - ends - both[c]) / (READERS - 1) for c in WIDTHS}
    taps = 9 if family.kind is LayerKind.SPATIAL else 1
    return Split(
        layer, positions * taps * reference**2, inputs, {c: both[c] - inputs[c] for c in WIDTHS}
    )


def kinds_record(times: Times, margins: Mapping[LayerKind, float]) -> dict[str, object]:
    """The table's `kinds`: curves are geometric means over the sizes of a kind."""
    record: dict[str, object] = {}
    for kind in LayerKind:
        families = [family for family in FAMILIES if family.kind is kind]
        splits = [split(family, times) for family in families]
        reference = families[0].reference
        entry: dict[str, object] = {
            "reference": reference,
            "margin": round(margins[kind], 4),
            "ns_per_mac": _mean([part.layer / part.macs for part in splits]),
            "outputs": _curve([part.effective(part.outputs, reference) for part in splits]),
        }
        if kind is not LayerKind.DEPTHWISE:
            entry["inputs"] = _curve([part.effective(part.inputs, reference) for part in splits])
        record[kind.value] = entry
    return record


def _curve(curves: list[dict[int, float]]) -> dict[str, float]:
    return {str(c): _mean([curve[c] for curve in curves]) for c in WIDTHS}


def _mean(values: list[float]) -> float:
    """Geometric, to four digits."""
    if min(values) <= 0:
        raise SystemExit("a reference layer's time is not positive: measure with more passes")
    return float(f"{np.exp(np.mean(np.log(values))):.4g}")
