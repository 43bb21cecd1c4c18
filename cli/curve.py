"""The threshold curve as a table whose bars are its plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from rich.table import Table

    from deploykit.exporting.threshold_curve import CurvePoint, ThresholdCurve

WIDTH = 20
"""Characters of a full bar."""
ONE_POINT = 0.01
PRUNING = ("prune_rule", "threshold")
DEFAULT_OUT = "bundle"


def curve_table(curve: ThresholdCurve) -> Table:
    """One row for each threshold; bars are shares of the unpruned network's size and accuracy."""
    from rich import box
    from rich.table import Table

    whole = curve.points[0]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("threshold", "closed", "parameters", "MACs", "accuracy"):
        table.add_column(name, justify="right")
    table.add_column("accuracy ▪ over size ▫")
    for point in curve.points:
        accuracy = point.accuracy / whole.accuracy if whole.accuracy else 0.0
        table.add_row(
            "none" if point.threshold is None else _marked(point.threshold, curve),
            f"{point.closed:,}",
            f"{point.parameters:,}",
            f"{point.macs:,}",
            f"{point.accuracy:.4f}",
            bars(accuracy, point.parameters / whole.parameters),
        )
    return table


def _marked(threshold: float, curve: ThresholdCurve) -> str:
    return f"{'* ' if threshold == curve.default else ''}{threshold:g}"


def bars(accuracy: float, size: float) -> str:
    """bars(1, 0.5) -> 10 marks of both, then 10 of accuracy alone."""
    marks = [min(max(round(share * WIDTH), 0), WIDTH) for share in (accuracy, size)]
    return "".join(
        "▣" if place < min(marks) else "▪" if place < marks[0] else "▫" if place < marks[1] else " "
        for place in range(WIDTH)
    ).rstrip()


def curve_lines(curve: ThresholdCurve, export: str) -> list[str]:
    """What the table says, why it ends, and what to do next.

    export: the command without what prunes.
    """
    lines = [
        f"{curve.statistic} of {curve.gates:,} gates; accuracy in float on {curve.samples:,} "
        "labelled samples; nothing was written."
    ]
    if any(point.threshold == curve.default for point in curve.points[1:]):
        lines.append("*: the default of the rule, which export takes without --threshold.")
    elif curve.default is not None:
        lines.append(f"The default of the rule, {curve.default:g}, lies beyond the last row.")
    if curve.ended:
        lines.append(f"No higher share: {curve.ended}")
    best = max(point.accuracy for point in curve.points)
    kept = [point for point in curve.points[1:] if point.accuracy >= best - ONE_POINT]
    if not kept:
        lines += [
            "The smallest within one point of the best: none, every threshold costs more than one "
            "point.",
            f"Next: {export} --prune-rule none",
            f"      (or --prune-rule {curve.rule} --threshold T, of the table, at what it costs)",
        ]
        return lines
    last = kept[-1]
    assert last.threshold is not None
    lines += [
        f"The smallest within one point of the best: --threshold {last.threshold:g} "
        f"({last.accuracy:.4f}, {last.parameters:,} parameters).",
        f"Next: {export} --prune-rule {curve.rule} --threshold {last.threshold:g}",
    ]
    return lines


def export_command(
    name: str, checkpoint: Path, given: Mapping[str, Any], config: Path | None, out: Path | None
) -> str:
    """An export with these options but what prunes, to be pasted into a shell."""
    import shlex

    words = [name, "export", str(checkpoint)]
    options = {key: value for key, value in given.items() if key not in PRUNING}
    for key, value in {**options, "config": config, "out": out or DEFAULT_OUT}.items():
        if value is None or value is False:
            continue
        flag = f"--{key.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words += [flag] if one is True else [flag, str(one)]
    return shlex.join(words)


def curve_json(curve: ThresholdCurve) -> dict[str, object]:
    """For machines."""
    return {
        "rule": curve.rule, "statistic": curve.statistic, "gates": curve.gates,
        "samples": curve.samples, "ended": curve.ended, "default": curve.default,
        "points": [_point(point) for point in curve.points],
    }  # fmt: skip


def _point(point: CurvePoint) -> dict[str, object]:
    return {
        "threshold": point.threshold, "closed": point.closed, "parameters": point.parameters,
        "macs": point.macs, "accuracy": point.accuracy,
    }  # fmt: skip
