"""Least times of many models, in interleaved rounds, so that a busy machine hurts all alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from width_models import WidthModel, model_file

from deploykit.bench.runner import RUNTIMES, Stopwatch, batches
from deploykit.graph.widths.host import Element, Runtime

AT_A_TIME = 4
"""Inferences that are timed at each visit, after one that warms the caches."""

Times = dict[str, int]
"""Least nanoseconds of one inference, by model."""


class Bench:
    """Times models in this process, one thread; each file is made once, in `folder`."""

    def __init__(self, runtime: Runtime, element: Element, folder: Path, rounds: int) -> None:
        self.runtime, self.element = runtime, element
        self.folder, self.rounds = folder, rounds

    def least(self, models: Mapping[str, WidthModel]) -> Times:
        """The least time of each, from new sessions: another one may lie better in memory."""
        watches = {name: self._watch(name, model) for name, model in models.items()}
        times = dict.fromkeys(models, sys.maxsize)
        for _ in range(self.rounds):
            for name, watch in watches.items():
                watch.time_ns()
                for _ in range(AT_A_TIME):
                    times[name] = min(watch.time_ns(), times[name])
        return times

    def _watch(self, name: str, model: WidthModel) -> Stopwatch:
        (path,) = list(self.folder.glob(f"{name}.*")) or [self._write(name, model)]
        session = RUNTIMES[path.suffix]().load(path, 1)
        return Stopwatch(session, batches(session, None))

    def _write(self, name: str, model: WidthModel) -> Path:
        suffix, data = model_file(model, self.runtime, self.element)
        path = self.folder / f"{name}{suffix}"
        path.write_bytes(data)
        return path


def least_of(*runs: Times) -> Times:
    """The least time of each model over runs of the same models."""
    return {name: min(run[name] for run in runs) for name in runs[0]}
