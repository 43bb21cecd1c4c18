"""Table cells whose words break where names have joints, not in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

JOINTS = (r"[^./]*[./]?", r"[^./_:-]*[./_:-]?", r"[^a-z0-9]?[a-z0-9]*")
"""Where a word that is too long breaks: behind dots and slashes, then behind other marks,
then before capitals."""
NARROWEST = 12
"""Width below which a column of names does not shrink, unless all of them are shorter."""


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters.

    folded("backbone.stage1.conv in float", 16) -> ["backbone.stage1.", "conv in float"]
    """
    lines = [""]
    for word in text.split():
        if len(word) > width and lines[-1]:
            lines.append("")
        for place, part in enumerate(_parts(word, width)):
            blank = " " if place == 0 and lines[-1] else ""
            if len(lines[-1]) + len(blank) + len(part) <= width:
                lines[-1] += blank + part
            elif lines[-1]:
                lines.append(part)
            else:
                lines[-1] = part
    return lines


def _parts(word: str, width: int, level: int = 0) -> Iterator[str]:
    """The word, or its parts where it is too long; letter by letter where no joint helps."""
    if len(word) <= width:
        yield word
    elif level == len(JOINTS):
        yield from (word[start : start + width] for start in range(0, len(word), width))
    else:
        for part in re.findall(JOINTS[level], word):
            if part:
                yield from _parts(part, width, level + 1)


class Folded:
    """A cell of a rich table."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Its lines at the width that the column has."""
        from rich.text import Text

        yield Text("\n".join(folded(self.text, options.max_width)), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As narrow as NARROWEST, as wide as the text."""
        from rich.measure import Measurement

        words = (part for word in self.text.split() for part in re.findall(JOINTS[0], word))
        longest = max(map(len, words), default=0)
        return Measurement(min(longest, NARROWEST), min(len(self.text), options.max_width))
