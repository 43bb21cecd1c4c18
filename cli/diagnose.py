"""deploykit diagnose: which layers of a bundle cost accuracy, and what to do about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit_cli.folding import NARROWEST, Folded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from deploykit.diagnose.findings import Advice, Diagnosis, LayerFinding, Remedy

RUNTIMES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
SEEN = 0.0005
"""Shares below it stand as nothing."""
CLOSE_DB = 30.0
"""A thirtieth of the outputs' size."""


def diagnose(
    bundle: Annotated[Path, typer.Argument(help="Folder that `deploykit export` wrote.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Calibration .npz, as for export, to measure on and to try other ranges with; "
            "without it, the samples that the bundle keeps."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many to measure on; more take longer.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Measure what each layer costs at the outputs, and try what helps the three that hurt most."""
    import json

    from rich.console import Console

    import deploykit
    from deploykit.diagnose.record import diagnosis_json
    from deploykit_cli.progress import StageLines

    found = deploykit.diagnose_bundle(
        bundle, data=data, samples=samples, progress=StageLines(Console(stderr=True))
    )
    if as_json:
        typer.echo(json.dumps(diagnosis_json(found), indent=2))
        return
    console = Console()
    console.print(diagnosis_table(found))
    for line in diagnosis_lines(found, "the bundle's samples" if data is None else str(data)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def diagnosis_table(found: Diagnosis) -> Table:
    """One row per layer: where the error at the outputs comes from."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    known = any(layer.sensitivity is not None for layer in found.layers)
    if known:  # one more column: 80 hold it with two lines of headings, and names fold earlier
        table.add_column("layer")
        table.add_column("operator", width=8, no_wrap=True)
        numbers = ["bits", "SQNR\ndB", "weights", "output", "beyond", "sensi-\ntivity"]
    else:
        table.add_column("layer", min_width=NARROWEST)
        table.add_column("operator")
        numbers = ["bits", "SQNR dB", "weights", "output", "beyond"]
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    if known:
        table.add_column("worst\nchannels", width=10, no_wrap=True)
    else:
        table.add_column("worst channels", no_wrap=True)
    for layer in found.layers:
        held = "" if layer.sensitivity is None else f"{layer.sensitivity:.3g}"
        table.add_row(
            Folded(layer.name),
            Folded(layer.operator),
            "" if layer.bits is None else str(layer.bits),
            _decibels(layer.sqnr_db),
            _share(layer.weights, found.total),
            _share(layer.activations, found.total),
            _share(layer.saturated, 1.0),
            *((held,) if known else ()),
            Folded(_channels(layer, found.total)),
        )
    return table


def diagnosis_lines(found: Diagnosis, source: str) -> list[str]:
    """The sentences below the table. source: of the samples."""
    measured = ", ".join(
        f"{RUNTIMES.get(name, name)} {_decibels(value)}"
        for name, value in found.measured_db.items()
    )
    lines = [
        "weights, output: shares of the error at the network's outputs, one layer's integers at a "
        "time; beyond: output values outside of the range.",
        f"Outputs: SQNR {_decibels(found.output_db)} dB on {found.samples} of {source}"
        + (", as many as fit in memory" if found.limited else "")
        + (f" (measured: {measured})." if measured else "."),
    ]
    if found.output_db >= CLOSE_DB:
        lines.append(
            "So close to float, integers hardly cost accuracy: what is lacking was lost before; "
            "`deploykit inspect` shows the accuracy of each stage."
        )
    if found.target and found.advice:
        lines.append(
            f"Bits were chosen under {found.target}: the flags go in place of --bits auto and its "
            "limit, and may exceed it; --plan keeps the other layers' bits."
        )
    layers = {layer.name: layer for layer in found.layers}
    for place, advice in enumerate(found.advice, 1):
        lines += _advice_lines(place, advice, layers[advice.layer])
    if found.together is not None:
        lines.append(f"All of it: {_told(found.together)}")
    if found.everywhere or found.untried:
        lines.append("The error is spread over many layers. For all of them, each by itself:")
        lines += [f"   {_told(one)}" for one in found.everywhere]
    lines += [
        f"   {flags}   not tried: on so many weights that takes as long as the export itself"
        for flags in found.untried
    ]
    if not found.advice:
        lines.append("No layer costs anything.")
    return lines


def _advice_lines(place: int, advice: Advice, layer: LayerFinding) -> list[str]:
    from deploykit.diagnose.record import cause_text

    named = ", ".join(str(channel.index) for channel in layer.channels)
    where = f" (channels {named})" if len(layer.channels) > 1 else ""
    head = (
        f"{place}. {advice.layer}: {100 * advice.share:.1f} % of the error, "
        f"by {cause_text(advice.cause, layer.bits)}{where}"
    )
    if advice.remedy is not None:
        return [head, f"   {_told(advice.remedy)}"]
    tried = "; ".join(advice.tried)
    told = f"tried: {tried}" if tried else "no option of export changes it"
    more = "" if place == 1 else " more"
    return [head, f"   Nothing{more} helps by 0.2 dB ({told})."]


def _told(remedy: Remedy) -> str:
    import shlex

    told = (
        f"{shlex.join(remedy.flags)}   {_decibels(remedy.before_db)} to "
        f"{_decibels(remedy.after_db)} dB (estimated{f', {remedy.of}' if remedy.of else ''})"
    )
    if remedy.weight_bytes and any(remedy.weight_bytes.values()):
        told += f", {_growth(remedy.weight_bytes)}"
    return told


def _growth(more: Mapping[str, int]) -> str:
    """_growth({"model.onnx": 225, "model.tflite": 0}) -> "bytes more: 225 in model.onnx alone"."""
    first, *others = more.values()
    if len(more) > 1 and all(held == first for held in others):
        return f"{first:,} bytes more in each file"
    grown = [f"{held:,} in {file}" for file, held in more.items() if held]
    alone = " alone" if len(grown) < len(more) else ""
    return f"bytes more: {', '.join(grown)}{alone}"


def _decibels(value: float) -> str:
    import math

    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "none")


def _share(part: float, whole: float) -> str:
    share = part / whole if whole > 0.0 else 0.0
    return f"{100 * share:.1f} %" if share >= SEEN else ""


def _channels(layer: LayerFinding, total: float) -> str:
    if layer.error < SEEN * total:
        return ""
    return ", ".join(str(channel.index) for channel in layer.channels)
