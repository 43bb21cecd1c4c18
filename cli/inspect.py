"""deploykit inspect: what a checkpoint, a model file or a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.errors import UsageError
from deploykit_cli.folding import Folded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deploykit.bundle import Bundle
    from deploykit.posterior.describe import CheckpointSummary
    from deploykit.report.model import ModelSummary


def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, a .onnx or .tflite file, a bundle.")],
    model: Annotated[
        str | None,
        typer.Option(help="Of a checkpoint: FILE.py:FACTORY that builds its network."),
    ] = None,
    input_shape: Annotated[
        list[str] | None, typer.Option(help="Shape of the network's input, as in export.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Entry of the checkpoint that holds the network.")
    ] = None,
    layer_map: Annotated[
        Path | None, typer.Option(help="Which layer of the network each layer is, as in export.")
    ] = None,
    write_layer_map: Annotated[
        Path | None,
        typer.Option(
            help="Write a JSON file: which layer of --model each layer of the checkpoint is, by "
            "shape and order. Look at it, edit it, and give it to --layer-map."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Describe a checkpoint (families, gates), a model file (operators) or a bundle."""
    import json

    from rich.console import Console

    import deploykit
    from deploykit.report.describe import describe_json

    if write_layer_map is not None:
        if layer_map is not None:
            raise UsageError("give --layer-map, or --write-layer-map, not both")
        _write_map(path, write_layer_map, model, input_shape, weights, as_json)
        return
    found = deploykit.inspect(
        path, model=model, input_shape=input_shape or None, weights=weights, layer_map=layer_map
    )
    if as_json:
        typer.echo(json.dumps(describe_json(found), indent=2))
        return
    console = Console()
    for part in _parts(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)


def _write_map(
    path: Path,
    out: Path,
    model: str | None,
    input_shape: list[str] | None,
    weights: str | None,
    as_json: bool,
) -> None:
    import shlex

    from deploykit.exporting.input_shapes import parse_inputs
    from deploykit.exporting.inspection import InspectOptions, write_layer_map
    from deploykit.posterior.layer_map_text import map_table, open_layers
    from deploykit_cli.progress import command_name

    inputs = parse_inputs(input_shape) if input_shape else None
    matches = write_layer_map(path, out, InspectOptions(model, inputs, weights))
    if as_json:
        typer.echo(out.read_text(encoding="utf-8"), nl=False)
        return
    typer.echo(map_table(matches, rows=len(matches)))
    undecided = open_layers(matches)
    if undecided:
        typer.echo(f"{undecided}; edit {out}: leave one candidate for each")
    words = ["inspect", str(path), "--model", str(model), "--layer-map", str(out)]
    words += [] if weights is None else ["--weights", weights]
    typer.echo(f"Next: {command_name()} {shlex.join(words)}")


def _parts(found: CheckpointSummary | ModelSummary | Bundle) -> list[RenderableType]:
    from deploykit.bundle import Bundle
    from deploykit.posterior.describe import CheckpointSummary
    from deploykit_cli.checkpoint_table import checkpoint_parts
    from deploykit_cli.tables import layer_table, legend, summary_table

    if isinstance(found, Bundle):
        operators = [layer["operator"] for layer in found.manifest["layers"]]
        return [
            layer_table(found.manifest), *legend(operators), summary_table(found.manifest),
        ]  # fmt: skip
    if isinstance(found, CheckpointSummary):
        return checkpoint_parts(found)
    return _model(found)


def _model(found: ModelSummary) -> list[RenderableType]:
    from rich import box
    from rich.table import Table

    from deploykit_cli.tables import legend

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    weighted = any(row.bits is not None for row in found.operators)
    headings = ("bits", "stored as") if weighted else ()
    last = "grid" if any(row.grid is not None for row in found.operators) else "kernel"
    for heading in ("computes", "operator", "shape", *headings, last):
        table.add_column(heading)
    for row in found.operators:
        shape = "x".join(map(str, row.shape))
        stored = (str(row.bits or ""), row.carrier or "") if weighted else ()
        told = (row.output, row.operator, shape, *stored, row.grid or row.kernel or "")
        table.add_row(*map(Folded, told))
    operators = [row.operator for row in found.operators]
    return [
        table,
        *legend(operators),
        f"{found.format}, {found.size_bytes:,} bytes, {found.runtime}",
    ]
