"""A proposed map of layers, for people to read."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.posterior.layer_map import DecidedBy, Match
from deploykit.posterior.layer_shapes import shown
from deploykit.spec.listing import listed

ROWS = 40
"""Of a map, that an error shows."""
SHAPES_WIDTH = 34
ROOT = "(the network itself)"


def open_layers(matches: Sequence[Match]) -> str:
    """Which layers nothing decides, as a clause; "" where there are none."""
    undecided = [f"'{match.layer.name}'" for match in matches if match.by is DecidedBy.NOTHING]
    if not undecided:
        return ""
    are = "is" if len(undecided) == 1 else "are"
    return f"nothing tells which of several equal layers {listed(undecided)} {are}"


def map_table(matches: Sequence[Match], rows: int = ROWS) -> str:
    """One line for each layer: its name, its shapes, the network's layer, and what decided."""
    lines = [("checkpoint", "network", "decided by", "shapes")]
    lines += [
        (
            match.layer.name or ROOT,
            " or ".join(name or ROOT for name in match.candidates),
            match.by.value,
            _cut(shown(match.layer.twin[0])),
        )
        for match in matches[:rows]
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    rest = len(matches) - rows
    return "\n".join((*text, f"... and {rest} more layers") if rest > 0 else text)


def _cut(text: str) -> str:
    return text if len(text) <= SHAPES_WIDTH else f"{text[:SHAPES_WIDTH]}..."
