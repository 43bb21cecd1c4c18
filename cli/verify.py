"""deploykit verify: a bundle proves itself again, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit_cli.folding import Folded

if TYPE_CHECKING:
    from deploykit.spec.parity import ParityReport

FAILED, INCOMPLETE = 1, 4
"""Exit codes: a step failed; every step that could be tried passed, and some could not be."""

COLOURS = {
    "passed": "green", "failed": "red", "skipped": "yellow", "not applicable": "dim",
    "unchecked": "yellow",
}  # fmt: skip


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder that `deploykit export` wrote.")],
    eval_data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled .npz that the export was given, to measure accuracy and confidence on "
            "again; without it they are unchecked."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the steps as a JUnit file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Check hashes, then every step of the parity ladder; ends with 0, 1 (failed) or 4 (partial).

    Where no runtime can be imported, the Python reference still checks the integers.
    """
    from rich.console import Console

    from deploykit.errors import IntegrityError
    from deploykit.exporting.verifying import verify_on_data
    from deploykit.spec.parity import ParityReport, Step, Verdict

    errors = Console(stderr=True)
    try:
        with errors.status("hashes") as status:
            report = verify_on_data(bundle, eval_data, status.update)
    except IntegrityError as error:
        # A job that collects reports has to see this failure in its report too.
        report = ParityReport((Step(0, "hashes", Verdict.FAILED, str(error)),))
        _write(report, bundle, junit, as_json)
        raise
    _write(report, bundle, junit, as_json)
    if not as_json:
        _print(report)
    if report.failed:
        raise typer.Exit(FAILED)
    if not report.complete:
        raise typer.Exit(INCOMPLETE)


def _write(report: ParityReport, bundle: Path, junit: Path | None, as_json: bool) -> None:
    """The machines' copies of a report, where they were asked for."""
    import json

    from deploykit.report.parity import junit_xml, parity_json

    if junit is not None:
        junit.write_bytes(junit_xml(report, str(bundle)))
    if as_json:
        typer.echo(json.dumps(parity_json(report), indent=2))


def _print(report: ParityReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("step", "compared", "verdict", "measured"):
        table.add_column(heading)
    for step in report.steps:
        verdict = Text(step.verdict.value, style=COLOURS[step.verdict.value])
        table.add_row(str(step.number), Folded(step.compared), verdict, Folded(step.detail))
    console = Console()
    console.print(table)
    console.print(_conclusion(report), highlight=False, markup=False, soft_wrap=True)


def _conclusion(report: ParityReport) -> str:
    if report.failed:
        return "This bundle is not what was exported, or a runtime disagrees with the reference."
    if not report.complete:
        return (
            "The Python reference verified this bundle; the skipped steps need their runtime. "
            f"Exit code {INCOMPLETE}."
        )
    unchecked = any(step.verdict.value == "unchecked" for step in report.steps)
    return "Every step that was checked holds." if unchecked else "Every step holds."
