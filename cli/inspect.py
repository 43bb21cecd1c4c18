"""deploykit inspect: what a checkpoint, a model file or a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit_cli.folding import Folded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deploykit.bundle import Bundle
    from deploykit.posterior.describe import CheckpointSummary, LayerSummary
    from deploykit.report.model import ModelSummary


def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, a .onnx or .tflite file, a bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Describe a checkpoint (families, gates), a model file (operators) or a bundle."""
    import json

    from rich.console import Console

    from deploykit.report.describe import describe, describe_json

    found = describe(path)
    if as_json:
        typer.echo(json.dumps(describe_json(found), indent=2))
        return
    console = Console()
    for part in _parts(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)


def _parts(found: CheckpointSummary | ModelSummary | Bundle) -> list[RenderableType]:
    from deploykit.bundle import Bundle
    from deploykit.posterior.describe import CheckpointSummary
    from deploykit_cli.tables import layer_table, legend, summary_table

    if isinstance(found, Bundle):
        operators = [layer["operator"] for layer in found.manifest["layers"]]
        return [
            layer_table(found.manifest), *legend(operators), summary_table(found.manifest),
        ]  # fmt: skip
    if isinstance(found, CheckpointSummary):
        return _checkpoint(found)
    return _model(found)


def _checkpoint(found: CheckpointSummary) -> list[RenderableType]:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer")
    table.add_column("family")
    table.add_column("shape")
    score = next((layer.score for layer in found.layers if layer.score), "score")
    scores = f"{score}: min, median, max"
    for heading in ("gates", scores, "|mean|/sd: min, median, max"):
        table.add_column(heading, justify="right")
    for layer in found.layers:
        name, *others = _layer_row(layer)
        table.add_row(Folded(name), *map(Folded, others))
    lines: list[RenderableType] = [table, f"{found.parameters:,} numbers in the file"]
    if found.unwrapped:
        lines.append(f"unwrapped: {', '.join(found.unwrapped)}")
    if found.beside:
        lines.append(
            f"also in the file: {', '.join(found.beside)}; `export --weights {found.beside[0]}` "
            "takes that instead"
        )
    lines += [f"note: {note}" for note in _grouped(found.traps)]
    lines.append(f"Next: {found.suggested_command}")
    return lines


def _grouped(traps: tuple[str, ...]) -> list[str]:
    """Lines of the form "layer: sentence", one for each sentence with all its layers."""
    layers: dict[str, list[str]] = {}
    for trap in traps:
        layer, _, sentence = trap.partition(": ")
        layers.setdefault(sentence, []).append(layer)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in layers.items()]


def _layer_row(layer: LayerSummary) -> tuple[str, ...]:
    shape = max(layer.shapes.values(), key=len, default=())
    return (
        layer.name, layer.family, "x".join(map(str, shape)),
        "" if layer.gates is None else str(layer.gates),
        _spread(layer.score_quantiles), _spread(layer.snr_quantiles),
    )  # fmt: skip


def _spread(quantiles: tuple[float, ...] | None) -> str:
    """Minimum, median and maximum of an odd number of quantiles."""
    if quantiles is None:
        return ""
    return ", ".join(
        f"{q:.3g}" for q in (quantiles[0], quantiles[len(quantiles) // 2], quantiles[-1])
    )


def _model(found: ModelSummary) -> list[RenderableType]:
    from rich import box
    from rich.table import Table

    from deploykit_cli.tables import legend

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("computes", "operator", "shape", "kernel"):
        table.add_column(heading)
    for row in found.operators:
        shape = "x".join(map(str, row.shape))
        table.add_row(Folded(row.output), Folded(row.operator), shape, Folded(row.kernel or ""))
    operators = [row.operator for row in found.operators]
    return [
        table,
        *legend(operators),
        f"{found.format}, {found.size_bytes:,} bytes, {found.runtime}",
    ]
