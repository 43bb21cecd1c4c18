"""deploykit prune: a float ONNX file without its dead channels."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.spec.listing import listed
from deploykit_cli.flags import Align, Target
from deploykit_cli.folding import NARROWEST, Folded

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.exporting.pruning import PrunedFile


def prune(
    path: Annotated[Path, typer.Argument(help="A float .onnx file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    report: Annotated[
        Path | None, typer.Option(help="Write everything that was done to this JSON file.")
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Sizes that the file leaves open, batch first: 1,3,224,224, or NAME=1,3,224,224 "
            "once for each input."
        ),
    ] = None,
    drop_dead_outputs: Annotated[
        bool,
        typer.Option(
            "--drop-dead-outputs",
            help="Cut constant channels of the outputs too, which changes their shape.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="An .npz as for export: channels go too that float32 rounding hides on such data."
        ),
    ] = None,
    max_growth: Annotated[
        float | None,
        typer.Option(
            help="How far constants that merge may stretch a layer's weight range; 1 keeps it, for "
            "a file that others quantize.  [default: inf]"
        ),
    ] = None,
    align: Align = None,
    groups: Annotated[
        str,
        typer.Option(
            help="Groups of a convolution that keep different numbers of channels: split into one "
            "convolution for every width where that is smaller, or equal: as wide as the widest."
        ),
    ] = "split",
    narrow_layers: Annotated[
        bool,
        typer.Option(
            "--narrow-layers",
            help="A layer whose tensor others keep wide computes its live channels alone, and a "
            "Gather copies them to their places, where that is faster on --target.",
        ),
    ] = False,
    target: Target = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Remove the channels that do nothing from an ONNX file, and prove that nothing changed."""
    import json

    from rich.console import Console

    from deploykit.exporting.prune_record import prune_record
    from deploykit.exporting.pruning import PruneOptions
    from deploykit.exporting.removing import removal_options
    from deploykit.graph.ports import parse_input_shapes
    from deploykit.graph.widths.host import Element, Runtime
    from deploykit.pipeline import prune_file
    from deploykit_cli.progress import StageLines, command_name

    replaced = out.is_file()
    asked = {
        "exact": data is None, "max_growth": max_growth, "align": align, "target": target,
        "drop_dead_outputs": drop_dead_outputs, "narrow_layers": narrow_layers,
        "groups": groups,
    }  # fmt: skip
    removal = removal_options(asked, [Runtime.ORT], Element.FLOAT32)
    options = PruneOptions(parse_input_shapes(input_shape or ()), removal, data)
    done = prune_file(path, out, options, report, StageLines(Console(stderr=True)))
    if as_json:
        typer.echo(json.dumps(prune_record(done), indent=2))
        return
    console = Console()
    if any(entry.removed for entry in done.removal.tensors):
        console.print(_layers(done))
    console.print(_summary(done))
    lines = [*_notes(done), f"The pruned network is in {out}{', over the one before' * replaced}"]
    lines.append(_next(done, command_name()))
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _layers(done: PrunedFile) -> Table:
    """One row per layer that lost channels: how many went, by reason."""
    from rich import box
    from rich.table import Table

    changed = [entry for entry in done.removal.tensors if entry.removed]
    reasons = list(dict.fromkeys(c.reason for entry in changed for c in entry.removed))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", min_width=NARROWEST)
    table.add_column("channels", justify="right", no_wrap=True)
    for reason in reasons:
        table.add_column(reason.name.lower(), justify="right")
    for entry in changed:
        counts = [sum(c.reason is reason for c in entry.removed) for reason in reasons]
        table.add_row(
            Folded(entry.operator),
            f"{entry.channels_before} → {entry.channels_after}",
            *(str(count or "") for count in counts),
        )
    return table


def _summary(done: PrunedFile) -> Table:
    from rich import box
    from rich.table import Table

    from deploykit.graph.options import Measured

    removal, certificate, measured = done.removal, done.removal.certificate, done.measured
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False, pad_edge=False)

    def row(what: str, told: str) -> None:
        table.add_row(Folded(what), Folded(told))

    before, after = removal.parameters_before, removal.parameters_after
    row("parameters", f"{before:,} → {after:,} (batch norm folded)")
    row("MACs", f"{removal.macs_before:,} → {removal.macs_after:,}")
    row("file", f"{done.source.size_bytes:,} → {done.size_bytes:,} bytes")
    row(
        "difference, float64",
        f"at most {certificate.max_relative:.1e} of the largest output, "
        f"{certificate.max_absolute:.1e} absolute ({certificate.samples} inputs)",
    )
    if not isinstance(measured, str):
        row(
            "difference, ONNX Runtime",
            f"at most {measured.max_relative:.1e} of the largest output, "
            f"{measured.max_absolute:.1e} absolute ({measured.inputs} inputs)",
        )
    if done.hidden is not None and done.hidden.channels:
        row(
            "hidden by float32",
            f"{len(done.hidden.channels)} {_plural(len(done.hidden.channels), 'channel')}: "
            f"{done.hidden.outcome.value}; outputs change by "
            f"{done.hidden.measured:.1e}",
        )
    grown = [growth for growth in removal.range_growth.values() if growth > 1.0]
    if grown:
        row(
            "merged constants",
            f"weight ranges of {len(grown)} layers grow, by {max(grown):.1f} at most; "
            "--max-growth 1 keeps them",
        )
    if isinstance(done.options.align, Measured) and removal.widened:
        added = sum(block.width - block.needed for block in removal.widened)
        row(
            "widths",
            f"{added} zero {_plural(added, 'channel')} kept or added in {len(removal.widened)} "
            f"{_plural(len(removal.widened), 'place')}, as "
            f"{done.options.align.table.target} is faster with them",
        )
    if removal.split:
        count = len(removal.split)
        row("groups", f"{count} grouped {_plural(count, 'convolution')} split by width")
    if done.options.narrow is not None:
        narrowed = removal.narrowed
        gain = f", {max(layer.gain for layer in narrowed):.1f} times at most" if narrowed else ""
        row(
            "narrowed",
            f"{len(narrowed)} {_plural(len(narrowed), 'layer')} "
            f"predicted to be faster on {done.options.narrow.target}{gain}",
        )
    if done.restored.symbols:
        row("open sizes", ", ".join(done.restored.symbols))
    return table


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _next(done: PrunedFile, command: str) -> str:
    """What can be done with the file."""
    file = shlex.quote(str(done.out))
    return f"Next: {command} export {file} --data calibration.npz --out bundle"


def _notes(done: PrunedFile) -> list[str]:
    """What the user may not have expected."""
    notes = []
    unchanged = sum(not entry.removed for entry in done.removal.tensors)
    hidden = () if done.hidden is None else done.hidden.channels
    if unchanged < len(done.removal.tensors):
        if unchanged:
            layers = "layer keeps" if unchanged == 1 else "layers keep"
            notes.append(f"{unchanged} {layers} every channel.")
    elif done.removal.widened or hidden:
        notes.append("Every channel stays: the dead ones cannot go alone, or are kept for speed.")
    else:
        notes.append("No channel is dead: the file is the same network, in one spelling.")
    borders = done.removal.borders
    if borders:
        notes.append(f"Removal stopped at operators without a rule: {listed(borders)}")
    if done.removal.split or done.removal.narrowed:
        notes.append(
            "note: for a file to quantize with export, leave --narrow-layers out and say "
            "--groups equal: there are no integer Split, Concat and Gather yet."
        )
    for name, kept in done.kept_outputs.items():
        notes.append(
            f"warning: output {name!r} has {len(kept.channels)} channels now, these of before: "
            f"{', '.join(map(str, kept.channels))}"
        )
    for name, size in done.restored.fixed.items():
        reason = done.restored.reasons.get(name, "")
        notes.append(f"warning: {name} is {size} in the file that was written: {reason}")
    if done.options.note:
        notes.append(f"note: {done.options.note}")
    if isinstance(done.measured, str):
        notes.append(f"warning: not compared in ONNX Runtime: {done.measured}")
    return notes
