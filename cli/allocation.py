"""Bits by layer as a table, with what they cost; and the plan as a file to edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from deploykit_cli.folding import NARROWEST, Folded

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from deploykit.bundle import Bundle
    from deploykit.exporting.options import ExportOptions

UNITS = {"posterior": "nats", "moments": "change of the output"}


def allocation_table(rows: Sequence[Any]) -> Table:
    """One row per weight: bits, bytes in the file that stores it widest, what it costs."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", min_width=NARROWEST)
    for heading in ("weights", "bits", "bytes", "sensitivity", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Folded(", ".join(row["layers"])),
            f"{row['weights']:,}",
            str(row["bits"]),
            f"{row['bytes']:,}",
            row["fixed"] or ("" if row["sensitivity"] is None else f"{row['sensitivity']:.3g}"),
            "" if row["share"] is None else f"{row['share']:.1%}",
        )
    total, count = sum(row["bytes"] for row in rows), sum(row["weights"] for row in rows)
    mean = sum(row["bits"] * row["weights"] for row in rows) / max(1, count)
    table.add_section()
    table.add_row("all", f"{count:,}", f"{mean:.3g}", f"{total:,}", "", "")
    return table


def allocation_lines(found: Any) -> Iterator[str]:
    """The limit, the measure, and why it was that one."""
    measure = found["sensitivity"]
    yield f"{found['target']}: bits by {measure}; sensitivity in {UNITS[measure]}."
    posterior = found["posterior"]
    if posterior is not None:
        verdict = "is informative" if posterior["informative"] else "is not informative"
        why = "" if posterior["informative"] else f": {posterior['why_not']}"
        yield f"The posterior {verdict}{why}."
        yield from _evidence(posterior)
    if found["float_accuracy"] is not None:
        yield (
            f"Top-1 of the float network {found['float_accuracy']:.4f}; tried: "
            + ", ".join(
                f"{one['accuracy']:.4f} at {one['largest_file']:,} bytes" for one in found["tried"]
            )
        )
    elif found["tried"]:
        yield f"The largest file takes {found['tried'][-1]['largest_file']:,} bytes."


def _evidence(posterior: Any) -> Iterator[str]:
    draws, noise = posterior["draws"], posterior["noise_over_spread"]
    if draws is not None:
        yield f"Spread s: third quartile over first {posterior['spread_quartile_ratio']:.3f}."
    if draws is not None:
        by_scale = ", ".join(f"{by:.4f} at {scale} s" for scale, by in draws["by_scale"].items())
        yield (
            f"Draws w + k s eps ({draws['judged_by']}, {draws['samples']:,} samples, "
            f"{draws['draws']} draws): {by_scale}; at the mean {draws['mean']:.4f}."
        )
    if draws is not None and noise is not None:
        told = ", ".join(f"{ratio:.3g} at {bits} bits" for bits, ratio in noise.items())
        yield f"Rounding errors over {draws['scale']:g} s: {told}."


def show_plan(
    source: Path, options: ExportOptions, save: Path | None, form: Literal["json", "table"]
) -> None:
    """Plan, print, and write the plan's file if one is asked for; no bundle."""
    import json

    import typer
    from rich.console import Console

    from deploykit.bundle import json_bytes
    from deploykit.exporting.allocation_record import allocation_record, plan_rows
    from deploykit.exporting.file_out import write_file
    from deploykit.exporting.plan_file import plan_form
    from deploykit.pipeline import plan_export
    from deploykit_cli.progress import StageLines

    planned = plan_export(source, options, StageLines(Console(stderr=True)))
    if save is not None:
        write_file(save, json_bytes(plan_form(planned.plan)))
    allocation = planned.allocation
    record: dict[str, Any] = (
        {"layers": plan_rows(planned.plan, options.to)}
        if allocation is None
        else allocation_record(allocation)
    )
    if form == "json":
        typer.echo(json.dumps(record, indent=2))
        return
    console = Console()
    console.print(allocation_table(record["layers"]))
    lines = [] if allocation is None else list(allocation_lines(record))
    ended = (
        "Nothing was written; to export it leave --dry-run out and give --out."
        if save is None
        else f"The plan is in {save}; to export it, edited or not: --plan {save} --out BUNDLE in "
        "place of --bits, its limit and --dry-run."
    )
    for line in (*lines, ended):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def save_plan_of(bundle: Bundle, path: Path) -> None:
    """The short form of a bundle's plan.json."""
    from deploykit.bundle import PLAN, json_bytes, read_record
    from deploykit.exporting.file_out import write_file
    from deploykit.exporting.plan_file import short_form

    write_file(path, json_bytes(short_form(read_record(bundle.file(PLAN)))))
