"""How long work tells where it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int, int], None]
"""Told (done, total) while a stage runs."""


class Progress(Protocol):
    """Hears which stage begins; the stage ends with the context."""

    def stage(self, name: str) -> AbstractContextManager[Advance]:
        """Begin the stage `name`."""
        ...


class Silent:
    """Listens to nothing."""

    def stage(self, name: str) -> AbstractContextManager[Advance]:
        """Begin nothing."""
        return nullcontext(ignore)


def ignore(done: int, total: int) -> None:
    """Drop the news."""
