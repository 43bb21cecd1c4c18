"""What headline.py knows of every network and form, and how it prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from headline_forms import FLOAT, RUNTIMES, Counted
from headline_subjects import BAYESIAN, DENSE, RIVAL

SEED_WIDTH = 16
"""Of the ResNet-18 that has several seeds."""
_FEWEST_SEEDS = 2
"""That have a deviation."""


@dataclass(frozen=True)
class Timing:
    """ms: median over rounds. faster: than dense float32 in the same runtime, and its interval.

    joules: of one inference, read from a counter; None where none can be read.
    """

    ms: float
    faster: float
    low: float
    high: float
    peak_mb: float
    joules: float | None = None


@dataclass(frozen=True)
class Row(Counted):
    """And what was timed, by runtime."""

    timing: Mapping[str, Timing]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """Back from JSON."""
        timing = {name: Timing(**one) for name, one in record["timing"].items()}
        return cls(**{**record, "timing": timing})

    @property
    def correct_per_joule(self) -> float:
        """Right answers for an estimated joule."""
        return self.top1["ORT"] / self.joules


@dataclass(frozen=True)
class Table:
    """Rows of a subject, the dense float32 one first. processor: where it was timed."""

    subject: str
    width: int
    seed: int
    processor: str
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Table:
        """Back from JSON."""
        return cls(**{**record, "rows": tuple(Row.of(one) for one in record["rows"])})

    def has(self, network: str, form: str) -> bool:
        """Whether there is such a row."""
        return any((one.network, one.form) == (network, form) for one in self.rows)

    def row(self, network: str, form: str) -> Row:
        """One of them. Raises KeyError."""
        for one in self.rows:
            if (one.network, one.form) == (network, form):
                return one
        raise KeyError(f"{self.subject}: {network}, {form}")

    @property
    def dense(self) -> Row:
        """What all are compared with."""
        return self.row(DENSE, FLOAT)

    def points_under(self, row: Row, runtime: str = "ORT") -> float:
        """Of top-1, under dense float32."""
        return 100 * (self.dense.top1[runtime] - row.top1[runtime])

    def smaller(self, row: Row, runtime: str) -> float:
        """How many times smaller the file is than that of dense float32."""
        return self.dense.sizes[runtime] / row.sizes[runtime]


SIZE_HEADING = (
    f"{'network':<26}{'form':<12}{'top-1':>7}{'parameters':>11}{'MMACs':>7}"
    f"{'model.onnx':>11}{'x':>6}{'deflated':>10}{'model.tflite':>13}{'x':>6}{'deflated':>10}"
)
TIME_HEADING = (
    f"{'network':<26}{'form':<12}{'ORT ms':>8}  {'times faster':<19}{'MB':>6}"
    f"{'LiteRT ms':>10}  {'times faster':<19}{'MB':>6}{'est. uJ':>9}{'correct / est. J':>17}"
)


def size_line(table: Table, row: Row) -> str:
    """Accuracy and sizes."""
    files = "".join(
        f"{row.sizes[runtime]:>{width},}{table.smaller(row, runtime):>6.1f}"
        f"{row.deflated[runtime]:>10,}"
        for runtime, width in zip(RUNTIMES, (11, 13), strict=True)
    )
    return (
        f"{row.network:<26}{row.form:<12}{row.top1['ORT']:>7.4f}{row.parameters:>11,}"
        f"{row.macs / 1e6:>7.2f}{files}"
    )


def time_line(row: Row) -> str:
    """Latency, memory, energy."""
    cells = ""
    for runtime, width in zip(RUNTIMES, (8, 10), strict=True):
        one = row.timing[runtime]
        interval = f"{one.faster:.2f} ({one.low:.2f}-{one.high:.2f})"
        cells += f"{one.ms:>{width}.4f}  {interval:<19}{one.peak_mb:>6.1f}"
    return (
        f"{row.network:<26}{row.form:<12}{cells}{1e6 * row.joules:>9.2f}"
        f"{row.correct_per_joule:>17,.0f}"
    )


def printed(table: Table) -> list[str]:
    """Both tables of a subject."""
    return [
        f"{table.subject}; timed on {table.processor}",
        SIZE_HEADING,
        *(size_line(table, row) for row in table.rows),
        TIME_HEADING,
        *(time_line(row) for row in table.rows),
        *energy_lines(table),
    ]


def energy_lines(table: Table) -> list[str]:
    """What was read, by row; or that nothing could be."""
    read = [
        f"{row.network:<26}{row.form:<12}"
        + "".join(
            f"{runtime}: {1e6 * one.joules:.1f} uJ, "
            f"{row.top1[runtime] / one.joules:,.0f} correct / J  "
            for runtime, one in row.timing.items()
            if one.joules is not None
        )
        for row in table.rows
        if any(one.joules is not None for one in row.timing.values())
    ]
    return read or [
        "energy: no counter can be read here (powercap); est. is an estimate, see its script"
    ]


def seeds(tables: Sequence[Table], form: str) -> dict[str, tuple[float, float]]:
    """Mean and deviation of top-1 over the seeds of SEED_WIDTH, by network that all have."""
    chosen = [table for table in tables if table.width == SEED_WIDTH]
    if len(chosen) < _FEWEST_SEEDS:
        return {}
    found = {}
    for name in (DENSE, BAYESIAN, RIVAL):
        if all(table.has(name, form) for table in chosen):
            shares = [table.row(name, form).top1["ORT"] for table in chosen]
            found[name] = (float(np.mean(shares)), float(np.std(shares, ddof=1)))
    return found
