"""Accuracy against bytes and against latency, one mark for each network and form, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headline_table import Row, Table

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 44, 66
_GAP = 70
_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_SHAPES = {
    "float32": "M-5,-5h10v10h-10z",
    "int8": "M0,-6L6,5L-6,5z",
    "W4": "M0,-6.5L6.5,0L0,6.5L-6.5,0z",
    "auto": "M-6,-2h4v-4h4v4h4v4h-4v4h-4v-4h-4z",
}
"""By form, around the origin."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}"
    ".grid{stroke:#d1d9e0;stroke-width:1}.axis{stroke:#59636e;stroke-width:1;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.grid{stroke:#3d444d}"
    ".axis{stroke:#9198a1}}"
)


def drawn(table: Table) -> str:
    """Both panels of a subject, with a legend; readable on light and on dark pages."""
    rows = [row for row in table.rows if row.form in _SHAPES]
    networks = list(dict.fromkeys(row.network for row in rows))[: len(_COLOURS)]
    rows = [row for row in rows if row.network in networks]
    panel = (_WIDTH - _LEFT - _RIGHT - _GAP) / 2
    body = [
        _panel(rows, networks, _LEFT, panel, "bytes of model.onnx", lambda r: r.sizes["ORT"]),
        _panel(rows, networks, _LEFT + panel + _GAP, panel, "ms in ONNX Runtime, one thread",
               lambda r: r.timing["ORT"].ms),
        _legend(networks),
    ]  # fmt: skip
    title = f"{table.subject}: test accuracy against size and against latency"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{title}">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        f'<text x="{_LEFT}" y="20" style="font-weight:600">{title}</text>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _panel(
    rows: Sequence[Row],
    networks: Sequence[str],
    left: float,
    width: float,
    label: str,
    of: Callable[[Row], float],
) -> str:
    bottom = _HEIGHT - _BOTTOM
    shares = [100 * row.top1["ORT"] for row in rows]
    low, high = math.floor(2 * min(shares)) / 2, math.floor(2 * max(shares)) / 2 + 0.5
    ends = [math.log10(of(row)) for row in rows]
    first, last = min(ends) - 0.08, max(ends) + 0.08

    def x(value: float) -> float:
        return left + width * (math.log10(value) - first) / (last - first)

    def y(percent: float) -> float:
        return bottom - (bottom - _TOP) * (percent - low) / (high - low)

    lines = []
    for step in range(round((high - low) / 0.5) + 1):
        percent = low + 0.5 * step
        lines.append(
            f'<line class="grid" x1="{left:.1f}" x2="{left + width:.1f}" '
            f'y1="{y(percent):.1f}" y2="{y(percent):.1f}"/>'
            f'<text x="{left - 6:.1f}" y="{y(percent) + 4:.1f}" text-anchor="end">'
            f"{percent:.1f} %</text>"
        )
    for value in _ticks(10**first, 10**last):
        lines.append(
            f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" '
            f'y1="{_TOP}" y2="{bottom}"/>'
            f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{_short(value)}</text>"
        )
    lines.append(f'<path class="axis" d="M{left:.1f},{_TOP}V{bottom}h{width:.1f}"/>')
    lines.append(
        f'<text x="{left + width / 2:.1f}" y="{bottom + 34}" text-anchor="middle">{label}</text>'
    )
    for row in rows:
        colour = _COLOURS[networks.index(row.network)]
        told = f"{row.network}, {row.form}: {100 * row.top1['ORT']:.2f} %, {of(row):,g} {label}"
        lines.append(
            f'<path transform="translate({x(of(row)):.1f},{y(100 * row.top1["ORT"]):.1f})" '
            f'd="{_SHAPES[row.form]}" fill="{colour}"><title>{told}</title></path>'
        )
    return "\n".join(lines)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between both."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = (lead * 10.0**power for power in powers for lead in (1, 2, 5))
    return [one for one in every if low <= one <= high]


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} MB"
    return f"{value / 1e3:g} kB" if value >= 1e3 else f"{value:g}"


def _legend(networks: Sequence[str]) -> str:
    y, x = _HEIGHT - 14, float(_LEFT)
    parts = []
    for place, name in enumerate(networks):
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y - 4}" r="5" fill="{_COLOURS[place]}"/>'
            f'<text x="{x + 10:.1f}" y="{y}">{name}</text>'
        )
        x += 30 + 6.4 * len(name)
    x += 16
    for form, shape in _SHAPES.items():
        parts.append(
            f'<path class="axis" transform="translate({x:.1f},{y - 4})" d="{shape}"/>'
            f'<text x="{x + 12:.1f}" y="{y}">{form}</text>'
        )
        x += 34 + 6.4 * len(form)
    return "\n".join(parts)
