"""What README.md shows of training.json, as a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from costs import cost
from model import Widths

_NAME = re.compile(r"(base|dense|bayesian|magnitude)(\d+)-(\d+)(?:-(\w+))?")
_ORDER = ("base", "dense", "bayesian", "magnitude")
_ENDINGS = {"": "", "macs": ", same MACs", "inner": ", in blocks"}
_HEADING = """\
| network | weights | MACs (million) | validation | test | points under dense | epochs | wall time |
|---|---|---|---|---|---|---|---|"""


def markdown(networks: Mapping[str, Any]) -> str:
    """A row for each, narrow ones first."""
    return "\n".join([_HEADING, *(_row(name, networks) for name in sorted(networks, key=_place))])


def _place(name: str) -> tuple[int, int, int, str]:
    kind, width, seed, ending = _parts(name)
    return width, seed, _ORDER.index(kind), ending


def _parts(name: str) -> tuple[str, int, int, str]:
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return found[1], int(found[2]), int(found[3]), found[4] or ""


def _row(name: str, networks: Mapping[str, Any]) -> str:
    kind, width, seed, ending = _parts(name)
    told = networks[name]
    whole = cost(Widths.regular(width))
    weights, macs = f"{told['weights']:,}", f"{told['macs'] / 1e6:.1f}"
    if kind in ("bayesian", "magnitude"):
        weights += f" ({whole.weights / told['weights']:.2f} times fewer)"
        macs += f" ({whole.macs / told['macs']:.2f})"
    under = told["points_under"].get(f"dense{width}-{seed}")
    cells = [
        ("**Bayesian**" if kind == "bayesian" else kind)
        + f", width {width}, seed {seed}"
        + _ENDINGS.get(ending, f", {ending} %"),
        weights,
        macs,
        f"{100 * told['validation_accuracy']:.2f} %",
        f"{100 * told['test_accuracy']:.2f} %",
        "" if under is None else f"{under['points']:.2f} ± {under['standard_error']:.2f}",
        str(sum(len(one["by_epoch"]["weights"]) for one in told["trainings"])),
        f"{sum(one['seconds'] for one in told['trainings']) / 60:.0f} min",
    ]
    return f"| {' | '.join(cells)} |"
