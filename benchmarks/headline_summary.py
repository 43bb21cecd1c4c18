"""What README shows of headline.py's figures: a Markdown table by subject, and the seeds."""

from __future__ import annotations

from collections.abc import Sequence

from headline_forms import AUTO, FLOAT, INT8, RUNTIMES, SMALL
from headline_subjects import BAYESIAN
from headline_table import SEED_WIDTH, Row, Table, seeds

_HEADING = (
    "| {subject} | top-1 | model.onnx | model.tflite "
    "| ONNX Runtime | LiteRT | correct / est. J |\n"
    "|---|---|---|---|---|---|---|"
)


def summary(table: Table) -> str:
    """Every network in float32, int8 and `auto`, the Bayesian in all forms."""
    shown = [
        row
        for row in table.rows
        if row.network.startswith(BAYESIAN) or row.form in (FLOAT, INT8, AUTO)
    ]
    return "\n".join([
        _HEADING.format(subject=table.subject),
        *(_line(table, row) for row in shown),
    ])  # fmt: skip


def _line(table: Table, row: Row) -> str:
    sizes = [f"{_bytes(row.sizes[one])} ({table.smaller(row, one):.1f}×)" for one in RUNTIMES]
    speeds = [f"{row.timing[one].faster:.2f}×" for one in RUNTIMES]
    if row.form == SMALL:
        # model.onnx holds the integers of `auto`, whose row has its accuracy, size and speed.
        top1, sizes[0], speeds[0] = row.top1["LiteRT"], "", ""
    else:
        top1 = row.top1["ORT"]
    cells = [f"{row.network}, {row.form}", f"{100 * top1:.2f} %", *sizes, *speeds,
             f"{row.correct_per_joule:,.0f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _bytes(count: int) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} B"


def seed_summary(tables: Sequence[Table]) -> str:
    """Mean and deviation over the seeds of SEED_WIDTH; empty where there are none."""
    by_form = {form: seeds(tables, form) for form in (FLOAT, INT8)}
    if not all(by_form.values()):
        return ""
    count = sum(table.width == SEED_WIDTH for table in tables)
    lines = [f"| width {SEED_WIDTH}, {count} seeds, top-1 | {FLOAT} | {INT8} |", "|---|---|---|"]
    for name in by_form[FLOAT]:
        cells = " | ".join(
            f"{100 * mean:.2f} ± {100 * deviation:.2f} %"
            for mean, deviation in (by_form[form][name] for form in by_form)
        )
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)
