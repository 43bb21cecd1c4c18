"""The order in which processes of several models run."""

from __future__ import annotations

import random
from collections.abc import Sequence


def abba_order(models: Sequence[str], rounds: int, seed: int) -> tuple[str, ...]:
    """Each model `rounds` times: pairs of rounds, shuffled and then the same backwards.

    A slow drift (heat, a neighbour) then weighs equally on all: abba_order("ab", 2, s) is
    a b b a or b a a b. An odd last round is shuffled alone.
    """
    generator = random.Random(seed)
    order: list[str] = []
    for start in range(0, rounds, 2):
        shuffled = list(models)
        generator.shuffle(shuffled)
        order += shuffled
        if start + 1 < rounds:
            order += reversed(shuffled)
    return tuple(order)
