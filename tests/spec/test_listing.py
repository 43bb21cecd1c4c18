"""Names in a sentence."""

from __future__ import annotations

import pytest

from deploykit.spec.listing import listed


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("", ""),
        ("a", "a"),
        ("abcd", "a, b, c, d"),
        ("abcde", "a, b, c, d and 1 more"),
        ("abcdefg", "a, b, c, d and 3 more"),
    ],
)
def test_the_first_are_named_and_the_rest_counted(names: str, told: str) -> None:
    assert listed(names) == told
