"""Relative cost of a layer by its widths, read from a measured table.

An effective width e(c) is the time at width c in channels of the reference width R: e(64) = 64, and
e(60) = 70 means that 60 channels take as long as 70 would if time were proportional to width. It
splits into what the best width at or above c takes, and what an unlucky c takes beyond that:

    f(c) = min(e(c), e(c + 1), ..., e(c + PERIOD))        x(c) = e(c) - f(c)

    time(i, o) ~ rate * (f_in(i) * f_out(o)
                         + max(x_in(i) * sqrt(R * f_out(o)), x_out(o) * sqrt(R * f_in(i))))
    time(o)    ~ rate * e(o)                                                         depthwise

A layer that is unlucky on either side leaves the fast path once, hence the maximum; the slow path
costs copies, which do not grow with the other side, and a slower kernel, which does: the root lies
between.
With R on the other side, and where no width is unlucky, time is the product e_in * e_out.
Copies between layers (moves) have a time of their own, a fixed part and one by element.
Measured by benchmarks/widths.py, which also checks all this on layers of random widths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import sqrt
from typing import assert_never

from deploykit.errors import ConfigError

SCHEMA = 1
PERIOD = 32
"""Channels after which the shape of a curve repeats: a multiple of the tiles and vectors (4, 8, 16,
32) of the kernels measured so far."""

TABLES = files(__package__).joinpath("tables")
MEASURE = "python benchmarks/widths.py measure"


class LayerKind(Enum):
    """Layers whose kernels tile their channels differently."""

    SPATIAL = "spatial"
    POINTWISE = "pointwise"
    DEPTHWISE = "depthwise"
    LINEAR = "linear"


class Side(Enum):
    """Where a layer meets a tensor: it reads it, or it makes it."""

    INPUTS = "inputs"
    OUTPUTS = "outputs"


class Move(Enum):
    """What copies a tensor: its channels to other places, or with a number added to each."""

    GATHER = "gather"
    ADD = "add"


@dataclass(frozen=True)
class MoveCost:
    """fixed: time of a move of next to nothing; per_element: beyond it. As WidthTable.cost()."""

    fixed: float
    per_element: float

    def cost(self, elements: float) -> float:
        """Time of a move that writes so many numbers."""
        return self.fixed + self.per_element * elements


@dataclass(frozen=True)
class Curve:
    """Effective widths at measured widths, both ascending in `widths` from 1."""

    widths: tuple[int, ...]
    effective: tuple[float, ...]

    def at(self, width: int) -> float:
        """e(width), in channels.

        Where it was not measured: on the straight line through the two nearest measured widths
        that stand at the same place in the PERIOD, one on each side, or the last two of them.
        """
        if width < 1:
            raise ConfigError(f"a layer of {width} channels has no cost; ask for 1 or more")
        if width in self._values:
            return self._values[width]
        below = [c for c in range(width - PERIOD, 0, -PERIOD) if c in self._values]
        above = [c for c in range(width + PERIOD, self.widths[-1] + 1, PERIOD) if c in self._values]
        low, high = (below[0], above[0]) if above else (below[1], below[0])
        low_value, high_value = self._values[low], self._values[high]
        return low_value + (high_value - low_value) * (width - low) / (high - low)

    def floor(self, width: int) -> float:
        """f(width): the least that any width from here to one period further takes, in channels."""
        return _floor(self, width)

    @cached_property
    def _values(self) -> Mapping[int, float]:
        return dict(zip(self.widths, self.effective, strict=True))


@cache
def _floor(curve: Curve, width: int) -> float:
    return min(curve.at(c) for c in range(width, width + PERIOD + 1))


@dataclass(frozen=True)
class KindCosts:
    """reference: the width R at which the other side was measured.

    rate: time of one MAC at the reference width, relative to a spatial layer's.

    margin: the share of a time within which two predictions cannot be told apart.
    inputs: None where a layer has one width only (depthwise).
    """

    reference: int
    rate: float
    margin: float
    inputs: Curve | None
    outputs: Curve


@dataclass(frozen=True)
class WidthTable:
    """Costs by layer kind and width, for one runtime, element type and instruction set.

    runtime: with its version; processor: on which it was measured; isa: the instruction-set flags
    that choose the kernels.
    """

    target: str
    runtime: str
    processor: str
    isa: frozenset[str]
    date: str
    costs: Mapping[LayerKind, KindCosts]
    moves: Mapping[Move, MoveCost] = field(default_factory=dict)

    @staticmethod
    def names() -> tuple[str, ...]:
        """Targets that a table exists for, sorted."""
        found = (entry.name for entry in TABLES.iterdir())
        return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))

    @staticmethod
    def load(target: str) -> WidthTable:
        """The table of a target such as "litert-x86-avx512vnni-int8".

        Raises ConfigError that lists the tables there are.
        """
        known = WidthTable.names()
        if target not in known:
            raise ConfigError(
                f"no width table for the target {target!r}; there are {', '.join(known)}. Measure "
                f"one on the device with `{MEASURE}`, or align widths with --align N"
            )
        return WidthTable.read(TABLES.joinpath(f"{target}.json"))

    @staticmethod
    def read(file: Traversable) -> WidthTable:
        """The table in a JSON file that benchmarks/widths.py wrote; a Path is a Traversable.

        Raises ConfigError for what is not such a file.
        """
        try:
            return _parse(json.loads(file.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ConfigError(
                f"{file.name} is no width table of schema {SCHEMA} ({type(error).__name__}: "
                f"{error}); write it again with `{MEASURE}`"
            ) from error

    def cost(self, kind: LayerKind, inputs: int, outputs: int) -> float:
        """Time of a layer per output position and tap, relative to one MAC at a good width.

        Of a depthwise layer, `outputs` alone counts. Times of kinds compare: a depthwise MAC is
        slower than a pointwise one.
        """
        costs = self.costs[kind]
        if costs.inputs is None:
            return costs.rate * costs.outputs.at(outputs)
        return max(
            self.side_cost(kind, Side.INPUTS, inputs, outputs),
            self.side_cost(kind, Side.OUTPUTS, outputs, inputs),
        )

    def margin(self, kind: LayerKind) -> float:
        """The share of a time within which two predictions cannot be told apart."""
        return self.costs[kind].margin

    def side_cost(self, kind: LayerKind, side: Side, width: int, other: int) -> float:
        """cost() if the width on the other side were the luckiest at or above `other`.

        This is the cost to align one tensor by, as the others are aligned in their turn: between
        two unlucky tensors, a change of only one gains nothing.
        """
        costs = self.costs[kind]
        if costs.inputs is None:
            return costs.rate * costs.outputs.at(width)
        match side:
            case Side.INPUTS:
                here, there = costs.inputs, costs.outputs
            case Side.OUTPUTS:
                here, there = costs.outputs, costs.inputs
            case _:
                assert_never(side)
        least, beyond = here.floor(width), there.floor(other)
        unlucky = here.at(width) - least
        return costs.rate * (least * beyond + unlucky * sqrt(costs.reference * beyond))


def _parse(record: Mapping[str, object]) -> WidthTable:
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']}")
    curves = _mapping(record["kinds"])
    rates = {kind: _number(_mapping(curves[kind.value])["ns_per_mac"]) for kind in LayerKind}
    costs = {}
    for kind in LayerKind:
        entry = _mapping(curves[kind.value])
        costs[kind] = KindCosts(
            int(_number(entry["reference"])),
            rates[kind] / rates[LayerKind.SPATIAL],
            _number(entry["margin"]),
            None if kind is LayerKind.DEPTHWISE else _curve(entry["inputs"]),
            _curve(entry["outputs"]),
        )
    return WidthTable(
        str(record["target"]),
        str(record["runtime"]),
        str(record["processor"]),
        frozenset(_strings(record["isa"])),
        str(record["date"]),
        costs,
        _moves(record, rates[LayerKind.SPATIAL]),
    )


def _moves(record: Mapping[str, object], ns_per_mac: float) -> dict[Move, MoveCost]:
    """In the unit of the layers' costs; empty, or all of them."""
    if "moves" not in record:
        return {}
    held = {move: _mapping(_mapping(record["moves"])[move.value]) for move in Move}
    return {
        move: MoveCost(
            _number(entry["ns_fixed"]) / ns_per_mac, _number(entry["ns_per_element"]) / ns_per_mac
        )
        for move, entry in held.items()
    }


def _curve(record: object) -> Curve:
    """Effective widths by width, two whole periods at least, or ValueError."""
    points = sorted((int(width), _number(value)) for width, value in _mapping(record).items())
    widths = tuple(width for width, _ in points)
    effective = tuple(value for _, value in points)
    if not set(range(1, 2 * PERIOD + 1)) <= set(widths):
        raise ValueError(f"a curve must have every width from 1 to {2 * PERIOD}")
    if min(effective) <= 0:
        raise ValueError("an effective width is not positive")
    return Curve(widths, effective)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def _strings(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return [str(item) for item in value]


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
