"""Ratios of latencies: rounds of new sessions in one process, their inferences interleaved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np

from deploykit.bench.order import abba_order
from deploykit.bench.runner import RUNTIMES, Session, Stopwatch, batches
from deploykit.bench.summary import INTERVAL_MIN_ROUNDS, bootstrap_interval

MOST_VISITS, LEAST_VISITS = 6, 2
TURNS_NS = 400_000_000
"""The slowest model of a round gets this in all, within the numbers of visits."""
VISIT_NS = 20_000_000
MOST_AT_A_TIME = 100
SEED = 0


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of one model's time over another's, and its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Rounds:
    """least_ns: of each model, in every round; a model's file is timed once if two are equal."""

    least_ns: Mapping[str, tuple[int, ...]]

    def ms(self, model: str) -> float:
        """Median over rounds, in milliseconds."""
        return float(np.median(self.least_ns[model])) / 1e6

    def spread(self, model: str) -> float:
        """Interquartile range over rounds, in medians."""
        low, median, high = np.quantile(self.least_ns[model], [0.25, 0.5, 0.75])
        return float((high - low) / median)

    def ratio(self, numerator: str, denominator: str) -> Ratio:
        """Of the two times in the same round."""
        pairs = zip(self.least_ns[numerator], self.least_ns[denominator], strict=True)
        return ratio([above / below for above, below in pairs])


def ratio(paired: Sequence[float]) -> Ratio:
    """Median and interval of the rounds' ratios.

    Raises ValueError below INTERVAL_MIN_ROUNDS rounds, which give no interval.
    """
    interval = bootstrap_interval(paired, SEED)
    if interval is None:
        raise ValueError(f"{len(paired)} rounds; an interval needs {INTERVAL_MIN_ROUNDS}")
    return Ratio(float(np.median(paired)), *interval)


class ThreadStopwatch(Stopwatch):
    """Times inferences in processor time of this thread, which computes all of them.

    What other processes take away does not count, what they do to the caches does.
    """

    def time_ns(self) -> int:
        """Of one inference."""
        batch = self.inputs[self.next % len(self.inputs)]
        self.next += 1
        start = thread_time_ns()
        self.session.infer(batch)
        return thread_time_ns() - start


def time_rounds(
    files: Mapping[str, Path],
    rounds: int,
    stopwatch: Callable[[Session, list[dict[str, Any]]], Stopwatch] = Stopwatch,
) -> Rounds:
    """Every round loads all models anew: where a session's weights lie moves its time.

    Within a round the models take turns, LEAST_VISITS to MOST_VISITS times each; the least time of
    a round counts, as what disturbs a run only ever adds to it.
    """
    runtimes = {path.suffix: RUNTIMES[path.suffix]() for path in files.values()}
    contents = {name: path.read_bytes() for name, path in files.items()}
    first_of: dict[bytes, str] = {}
    same_as = {name: first_of.setdefault(data, name) for name, data in contents.items()}
    timed = [name for name, first in same_as.items() if name == first]
    least: dict[str, list[int]] = {name: [] for name in timed}
    for number in range(rounds):
        watches = {}
        for name in timed:
            session = runtimes[files[name].suffix].load(files[name], 1)
            watches[name] = stopwatch(session, batches(session, None))
        for name, found in _round(watches, number).items():
            least[name].append(found)
    return Rounds({name: tuple(least[first]) for name, first in same_as.items()})


def _round(watches: Mapping[str, Stopwatch], seed: int) -> dict[str, int]:
    warm = {name: min(watch.time_ns(), watch.time_ns()) for name, watch in watches.items()}
    affordable = TURNS_NS // max(warm.values()) // 2
    visits = min(max(affordable, LEAST_VISITS), MOST_VISITS)
    least = dict(warm)
    for name in abba_order(list(watches), visits, seed):
        watch = watches[name]
        watch.time_ns()
        for _ in range(min(ceil(VISIT_NS / warm[name]), MOST_AT_A_TIME)):
            least[name] = min(least[name], watch.time_ns())
    return least
