"""Progress on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from deploykit.spec.progress import Advance


class StageLines:
    """Shows the running stage with its share done, and a line with its seconds when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """See deploykit.spec.progress.Progress."""
        from time import perf_counter

        start = perf_counter()
        with self._console.status(name) as status:

            def advance(done: int, total: int) -> None:
                status.update(f"{name}: {done} of {total}")

            yield advance
        seconds = perf_counter() - start
        self._console.print(f"{name:<28} {seconds:6.1f} s", highlight=False, markup=False)


def command_name() -> str:
    """How this command was called, so that a line that names it can be pasted back."""
    import shutil
    import sys

    called = sys.argv[0]
    return called if called.endswith("deploykit") and not shutil.which("deploykit") else "deploykit"
