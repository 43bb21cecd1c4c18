"""A checkpoint's layers as tables that fit 80 columns, and the lines below them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploykit_cli.folding import Folded
from deploykit_cli.progress import command_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from deploykit.posterior.describe import CheckpointSummary, LayerSummary

SHOWN = (0.05, 0.5, 0.95)
"""Of the quantiles."""


def checkpoint_parts(found: CheckpointSummary) -> list[RenderableType]:
    """What there is, what the posterior says of it, what to mind, and the next command."""
    parts: list[RenderableType] = []
    if found.layers:
        parts.append(_layers(found))
    if any(layer.snr_quantiles for layer in found.layers):
        parts += ["", _posteriors(found), *_legend(found)]
    if any(layer.weight_bits for layer in found.layers):
        parts.append("weights, activations: bits that training chose; export keeps 2, 4 and 8")
    parts.append(f"{found.parameters:,} numbers read")
    if found.unwrapped:
        parts.append(f"unwrapped: {', '.join(found.unwrapped)}")
    if found.beside:
        parts.append(
            f"also in the file: {', '.join(found.beside)}; --weights {found.beside[0]} takes that "
            "instead"
        )
    parts += [f"left unread: {entry}" for entry in found.unread]
    parts += [f"note: {note}" for note in _grouped(found.traps)]
    suggested = found.suggested_command.removeprefix("deploykit ")
    parts.append(f"Next: {command_name()} {suggested}")
    if found.next_step:
        parts.append(f"      ({found.next_step})")
    return parts


def _layers(found: CheckpointSummary) -> Table:
    """One row for each layer; columns that no layer fills are left out."""
    columns = {
        "shape": ["x".join(map(str, _largest(layer))) for layer in found.layers],
        "gates": [_told(layer.gates, ",") for layer in found.layers],
        "closed": [_told(layer.dead_share, ".1%") for layer in found.layers],
        "bits": [_told(layer.bits, "d") for layer in found.layers],
        "weights": [_told(layer.weight_bits, "d") for layer in found.layers],
        "activations": [_told(layer.activation_bits, "d") for layer in found.layers],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    table = _table("layer", "family")
    for heading in filled:
        table.add_column(heading, justify="right")
    for layer, *cells in zip(found.layers, *filled.values(), strict=True):
        table.add_row(Folded(layer.name or "(all)"), Folded(layer.family), *map(str, cells))
    return table


def _told(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _largest(layer: LayerSummary) -> tuple[int, ...]:
    return max(layer.shapes.values(), key=lambda shape: (len(shape), math.prod(shape)), default=())


def _posteriors(found: CheckpointSummary) -> Table:
    """One row for each layer with a posterior; columns that no layer fills are left out."""
    rows = [layer for layer in found.layers if layer.snr_quantiles]
    scored = any(layer.score_quantiles for layer in rows)
    prior = any(layer.prior_variance for layer in rows)
    table = _table("layer", *(("score",) if scored else ()))
    headings = (*((_at("of gates"),) if scored else ()), _at("|mean|/sd"))
    for heading in (*headings, *(("prior sd",) if prior else ())):
        table.add_column(heading, justify="right")
    for layer in rows:
        cells = [layer.name or "(all)", *((layer.score or "",) if scored else ())]
        cells += [_spread(layer.score_quantiles)] if scored else []
        cells.append(_spread(layer.snr_quantiles))
        cells += [_deviation(layer)] if prior else []
        table.add_row(*map(Folded, cells))
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table


def _at(what: str) -> str:
    return f"{what}: 5 %, median, 95 %"


def _legend(found: CheckpointSummary) -> Iterator[str]:
    if any(layer.dead_share is not None for layer in found.layers):
        yield "closed: gates that export closes at the family's published threshold"
    elif any(layer.gates for layer in found.layers):
        yield "gates: none closes before you give --threshold; their family publishes none"
    yield "|mean|/sd: of single weights or gates; under 1 the noise is larger than the mean"
    if any(layer.bits is not None for layer in found.layers):
        yield "bits: of a grid as fine as the variance asks (Louizos et al. 2017); export writes 8"


def _spread(quantiles: tuple[float, ...] | None) -> str:
    from deploykit.posterior.describe import QUANTILES

    if quantiles is None:
        return ""
    shown = [quantiles[QUANTILES.index(place)] for place in SHOWN]
    return ", ".join("0" if abs(value) < 5e-4 else f"{value:.3g}" for value in shown)


def _deviation(layer: LayerSummary) -> str:
    return "" if layer.prior_variance is None else f"{layer.prior_variance**0.5:.3g}"


def _grouped(traps: tuple[str, ...]) -> list[str]:
    """Lines of the form "layer: sentence", one for each sentence with all its layers."""
    layers: dict[str, list[str]] = {}
    for trap in traps:
        layer, _, sentence = trap.partition(": ")
        layers.setdefault(sentence, []).append(layer)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in layers.items()]
