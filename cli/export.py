"""deploykit export: a checkpoint to a proven bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from deploykit.spec.progress import Advance


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A torch or safetensors file of tensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    model: Annotated[
        str | None,
        typer.Option(help="FILE.py:FACTORY or package.module:factory that builds the network."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of the input, batch first: 1,1,28,28.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Calibration .npz: `inputs` [N, C, H, W] float32.")
    ] = None,
    eval_data: Annotated[
        Path | None, typer.Option(help="Evaluation .npz: `inputs` and `labels` [N].")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Weight bits: 8.  [default: 8]")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="onnx or tflite; may be repeated.  [default: both]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="export.toml with these options; flags override it.")
    ] = None,
    prune_rule: Annotated[
        str | None,
        typer.Option(help="family, snr, savage-dickey or none.  [default: family]"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Threshold of the rule, for every layer.")
    ] = None,
    batchnorm: Annotated[
        str | None, typer.Option(help="keep, reestimate or analytic.  [default: keep]")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="mse, minmax, percentile or entropy.  [default: mse]")
    ] = None,
    io: Annotated[
        str | None, typer.Option(help="Graph inputs and outputs: float, int8 or uint8.")
    ] = None,
    tflite_layout: Annotated[
        str | None, typer.Option(help="Order of TFLite's input: nhwc or nchw.  [default: nhwc]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Fold, prune and quantize a checkpoint, write it, and prove that every runtime agrees."""
    import json

    from rich.console import Console

    import deploykit

    bundle = deploykit.export(
        checkpoint, out=out, model=model,
        input_shape=None if input_shape is None else _shape(input_shape),
        data=data, eval_data=eval_data, config=config, bits=bits, to=to, prune_rule=prune_rule,
        threshold=threshold, batchnorm=batchnorm, calibration=calibration, io=io,
        tflite_layout=tflite_layout, progress=StageLines(Console(stderr=True)),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(bundle.manifest, indent=2))
        return
    console = Console()
    for table in (layer_table(bundle.manifest), summary_table(bundle.manifest)):
        console.print(table)
    console.print(f"The bundle is in {out}", soft_wrap=True, markup=False, highlight=False)
    console.print(
        f"Next: deploykit verify {out}; deploykit bench {out} --device host",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def _shape(text: str) -> tuple[int, ...]:
    from deploykit.exporting.options import parse_shape

    return parse_shape(text)


class StageLines:
    """Shows the running stage with its share done, and a line with its seconds when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """See deploykit.spec.progress.Progress."""
        from time import perf_counter

        start = perf_counter()
        with self._console.status(name) as status:

            def advance(done: int, total: int) -> None:
                status.update(f"{name}: {done} of {total}")

            yield advance
        seconds = perf_counter() - start
        self._console.print(f"{name:<28} {seconds:6.1f} s", highlight=False, markup=False)


def layer_table(manifest: dict[str, Any] | Any) -> Table:
    """Channels, bits, SQNR and kernels, one row per integer operator."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer")
    table.add_column("operator")
    for heading in ("channels", "bits", "MACs", "SQNR dB"):
        table.add_column(heading, justify="right")
    runtimes = list(manifest["layers"][0]["kernels"]) if manifest["layers"] else []
    for runtime in runtimes:
        table.add_column(runtime)
    for layer in manifest["layers"]:
        before, after = layer["channels_before"], layer["channels_after"]
        sqnr = layer["sqnr_db"]
        table.add_row(
            layer["name"], layer["operator"],
            str(after) if before == after else f"{before} → {after}",
            str(layer["bits"] or ""), f"{layer['macs']:,}" if layer["macs"] else "",
            "" if sqnr is None else f"{sqnr:.1f}",
            *(str(layer["kernels"][runtime] or "") for runtime in runtimes),
        )  # fmt: skip
    return table


def summary_table(manifest: dict[str, Any] | Any) -> Table:
    """Size, accuracy and parity of the whole."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False, pad_edge=False)
    removal, sizes = manifest["removal"], manifest["sizes"]
    table.add_row(
        "parameters", f"{removal['parameters_before']:,} → {removal['parameters_after']:,}"
    )
    table.add_row("MACs", f"{removal['macs_before']:,} → {removal['macs_after']:,}")
    table.add_row("masked / pruned", f"{removal['max_relative_difference']:.1e} relative")
    dense = manifest["dense_float32_bytes"]
    for name, size in sizes.items():
        if name.startswith("model."):
            table.add_row(name, f"{size:,} bytes, {dense / size:.1f} times under dense float32")
    accuracy = manifest["accuracy"]
    if accuracy is not None:
        shares = [f"{k} {v:.4f}" for k, v in accuracy.items() if k != "samples"]
        table.add_row(f"accuracy ({accuracy['samples']:,})", ", ".join(shares))
    for found in manifest["parity"]:
        table.add_row(
            f"reference / {found['runtime']}",
            f"{found['differing']} of {found['integers']:,} integers differ "
            f"({found['samples']:,} inputs)",
        )
    return table
