"""Names in a sentence that has to stay readable."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 4


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """The first names, and how many more there are: "a, b, c, d and 3 more"."""
    every = list(names)
    rest = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {rest} more" if rest > 0 else "")
