"""The search for the threshold that prunes most."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def last_accepted(candidates: Sequence[float], accepted: Callable[[float], bool]) -> float:
    """Bisect for the last candidate that is accepted; the first is taken to be acceptable.

    Acceptance need not be monotone: the answer is accepted, its successor is not.
    """
    good, bad = 0, len(candidates)
    while bad - good > 1:
        middle = (good + bad) // 2
        if accepted(candidates[middle]):
            good = middle
        else:
            bad = middle
    return candidates[good]
