"""Joules of one inference, read from the processor's energy counter (RAPL) where it can be read.

The idle machine's power is measured first and taken off. Linux powercap: /sys/class/powercap has a
folder for each package (`name` is package-0, ...) with energy_uj, which wraps at
max_energy_range_uj; since 2020 only root may read it, and virtual machines have none. Other domains
lie beside them, of which psys holds the packages once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

POWERCAP = Path("/sys/class/powercap")
_MICRO = 1e-6
_WARM_UP = 5


@dataclass(frozen=True)
class Counter:
    """The counters of all packages, in the order of their folders."""

    folders: tuple[Path, ...]

    def read(self) -> tuple[int, ...]:
        """Microjoules by package."""
        return tuple(int((one / "energy_uj").read_text()) for one in self.folders)

    def since(self, before: tuple[int, ...]) -> float:
        """Joules of all packages since then; each may have wrapped once."""
        ranges = (int((one / "max_energy_range_uj").read_text()) for one in self.folders)
        passed = zip(self.read(), before, ranges, strict=True)
        return _MICRO * sum((now - then) % (size + 1) for now, then, size in passed)


def readable(root: Path = POWERCAP) -> Counter | None:
    """The packages' counters; None where there are none, or not for this user."""
    try:
        counter = Counter(tuple(sorted(filter(_is_package, root.glob("intel-rapl:*")))))
        counter.read()
    except OSError:
        return None
    return counter if counter.folders else None


def _is_package(folder: Path) -> bool:
    return (folder / "name").read_text().startswith("package")


def joules(counter: Counter, infer: Callable[[], object], seconds: float = 2.0) -> float:
    """Of one inference, over as many as fit into `seconds`, less as long a time of idling."""
    for _ in range(_WARM_UP):
        infer()
    before, start = counter.read(), perf_counter()
    sleep(seconds)
    idle_watts = counter.since(before) / (perf_counter() - start)
    count, before, start = 0, counter.read(), perf_counter()
    while perf_counter() - start < seconds:
        infer()
        count += 1
    used = counter.since(before) - idle_watts * (perf_counter() - start)
    return used / count
