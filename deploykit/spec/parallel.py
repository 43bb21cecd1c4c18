"""Work on all cores, each piece on one of them.

A matrix product that BLAS spreads over cores waits for the slowest of them by spinning: beside
another busy process an export takes many times as long. Pieces of one core each only share it.

Both ways gain where the work lets go of the interpreter, as numpy does on large arrays and runtimes
do; what a piece of work hands to `in_parallel` again stays on its own core.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import current_thread
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

NAME = "deploykit-worker"

MOST_WORKERS = 8
"""Each holds tensors of its own: more would need more memory than an export may."""

MOST_AHEAD = 4
"""Results that wait to be used; they may be large."""


def workers() -> int:
    """Cores that work is shared between."""
    known = hasattr(os, "sched_getaffinity")  # Linux alone has it
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """function(item) of each, in their order.

    The first error in the order of the items is raised, after what is under way has ended.
    """
    listed = list(items)
    with _blas().limit(limits=1, user_api="blas"):
        nested = current_thread().name.startswith(NAME)
        if nested or len(listed) < 2 or workers() == 1:
            return [function(item) for item in listed]
        with ThreadPoolExecutor(min(workers(), len(listed)), NAME) as pool:
            return list(pool.map(function, listed))


def computed_ahead(compute: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """compute(item) of each, in their order, the next ones while the one before is used.

    What `compute` raises is raised here, at its item, after what is under way has ended.
    """
    waiting: deque[Future[Result]] = deque()
    ahead = min(workers(), MOST_AHEAD)
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(ahead, NAME) as pool:
        for item in items:
            waiting.append(pool.submit(compute, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@cache
def _blas() -> Any:
    """The BLAS libraries that are loaded when it is first asked for; numpy's is."""
    import numpy  # noqa: F401  (loads its BLAS)

    return ThreadpoolController()
