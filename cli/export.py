"""deploykit export: a checkpoint, or an ONNX file, to a proven bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploykit_cli.flags import Align, ExportTarget

if TYPE_CHECKING:
    from rich.console import Console

Form = Literal["json", "table"]


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Tensors of torch or safetensors, or an .onnx file.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the new bundle.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="FILE.py:FACTORY or package.module:factory that builds the network."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Entry of the checkpoint that holds the network, for example ema."),
    ] = None,
    layer_map: Annotated[
        Path | None,
        typer.Option(
            help="JSON from `inspect --write-layer-map`: the network's name of each layer, where "
            "the checkpoint's differ."
        ),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape of the input, batch first: 1,1,28,28; or NAME=1,1,28,28 once for each, "
            "with :int64 behind the sizes of token ids."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Calibration .npz: `inputs` [N, C, H, W] float32, or an array per input by name."
        ),
    ] = None,
    eval_data: Annotated[
        Path | None, typer.Option(help="Evaluation .npz: `inputs` and `labels` [N].")
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Of weights: 8, 4 or 2; 6 and 5, which take the bytes of 8, 3 those of 4; or "
            "auto, by layer under one of --max-bytes, --target-bits, --max-accuracy-drop."
            "  [default: 8]"
        ),
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="With --bits auto: no model file larger; 40000, 40kB, 3MB.")
    ] = None,
    target_bits: Annotated[
        float | None, typer.Option(help="With --bits auto: mean bits of all weights, such as 4.5.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="With --bits auto: points of top-1 under the float network's, on --eval-data, "
            "which may not be --data; the larger of the files becomes as small as that allows."
        ),
    ] = None,
    sensitivity: Annotated[
        str | None,
        typer.Option(
            help="With --bits auto: what says how much a layer's rounding matters: posterior, "
            "moments, or auto, the posterior where it is informative.  [default: auto]"
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Take the bits of layers from a bundle's plan.json or a --save-plan."),
    ] = None,
    save_plan: Annotated[
        Path | None,
        typer.Option(
            help="Write the bits of layers to this file, to edit and give as --plan; with "
            "--dry-run no bundle."
        ),
    ] = None,
    layer_bits: Annotated[
        list[str] | None,
        typer.Option(
            help="Of one layer: NAME=4; NAME=8 leaves it in 8 bits, NAME=float in float. Goes "
            "before --bits and --plan; may be repeated."
        ),
    ] = None,
    min_ort: Annotated[
        str | None,
        typer.Option(help="Oldest ONNX Runtime that has to load model.onnx, such as 1.20."),
    ] = None,
    tflite_lowbit: Annotated[
        str | None,
        typer.Option(
            help="Below 8 bits, model.tflite: fast (larger kernels in int8, whatever their bits), "
            "or small (these in 4 bits, several times as slow).  [default: fast]"
        ),
    ] = None,
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
    numerics: Annotated[
        str | None,
        typer.Option(
            help="Where published float32 code errs (structured Bayesian pruning): exact, or "
            "reference as the author evaluated.  [default: exact]"
        ),
    ] = None,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact",
            help="Remove exact zeros only, not what float32 rounding hides.",
            show_default=False,
        ),
    ] = None,
    align: Align = None,
    target: ExportTarget = None,
    equalization: Annotated[
        str | None,
        typer.Option(
            help="Scale channels by powers of two so that they round better: cross-layer, or none."
            "  [default: none]"
        ),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="mse, minmax, percentile or entropy.  [default: mse]")
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            help="Of weights: compensated, sequential, learned, nearest, or auto: sequential"
            " below 8 bits, else compensated.  [default: auto]"
        ),
    ] = None,
    weight_range: Annotated[
        str | None,
        typer.Option(
            help="Below 8 bits, range of a channel's weights: least-error, which may clip the "
            "largest, or largest.  [default: least-error]"
        ),
    ] = None,
    bias_correction: Annotated[
        str | None,
        typer.Option(
            help="Take off biases what rounding adds to an output's mean: means, or none."
            "  [default: means]"
        ),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            help="int8, or float: of a network of linears alone, only weights are quantized, to 4 "
            "or 8 bits.  [default: int8]"
        ),
    ] = None,
    block_size: Annotated[
        str | None,
        typer.Option(
            help="With --activations float, of 4 bits: 32, 64 or 128 inputs share a scale; none: "
            "all of an output.  [default: none]"
        ),
    ] = None,
    io: Annotated[
        str | None, typer.Option(help="Graph inputs and outputs: float, int8 or uint8.")
    ] = None,
    tflite_layout: Annotated[
        str | None, typer.Option(help="Order of TFLite's input: nhwc or nchw.  [default: nhwc]")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the classes, one a line; both files carry them.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of x = (pixel - mean) / std; one number, or per channel.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="See --mean.")] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="fixed (the batch of --input-shape) or dynamic (any).  [default: fixed]"),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            help="Of the last layer's logits: labels or monte-carlo to fit it to, or a number."
        ),
    ] = None,
    temperature_data: Annotated[
        Path | None,
        typer.Option(
            help="Samples .npz to fit it on, with `labels` for labels.  [default: every second "
            "sample of --eval-data for labels, --data for monte-carlo]"
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write no bundle: show the plan of --bits auto, --plan or --save-plan; else "
            "accuracy and size along the threshold of the pruning rule, on --eval-data.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Fold, prune and quantize a checkpoint, write it, and prove that every runtime agrees.

    An .onnx file enters behind folding: no --model, --prune-rule, --threshold or --batchnorm, and
    --input-shape only where the file leaves a size open.
    """
    import json

    from rich.console import Console

    import deploykit
    from deploykit.bundle import HASHES
    from deploykit.errors import UsageError
    from deploykit.exporting.file_out import check_writable
    from deploykit.exporting.options import build_options, source_of
    from deploykit.exporting.plan_file import check_replaceable_plan
    from deploykit.report.warnings import warnings_of
    from deploykit_cli.allocation import allocation_lines, allocation_table, save_plan_of, show_plan
    from deploykit_cli.progress import StageLines, command_name
    from deploykit_cli.tables import (
        feeding_lines,
        layer_table,
        legend,
        source_lines,
        summary_table,
    )

    given: dict[str, Any] = {
        "model": model, "weights": weights, "input_shape": input_shape or None, "data": data,
        "eval_data": eval_data, "bits": _bits(bits), "to": to, "prune_rule": prune_rule,
        "threshold": threshold, "batchnorm": batchnorm, "exact": exact, "align": align,
        "target": target, "equalization": equalization, "calibration": calibration,
        "rounding": rounding, "weight_range": weight_range,
        "bias_correction": bias_correction, "io": io,
        "tflite_layout": tflite_layout, "labels": labels, "mean": mean, "std": std,
        "batch": batch, "numerics": numerics, "layer_map": layer_map,
        "layer_bits": layer_bits or None, "min_ort": min_ort, "tflite_lowbit": tflite_lowbit,
        "temperature": temperature, "temperature_data": temperature_data,
        "max_bytes": max_bytes, "target_bits": target_bits, "plan": plan,
        "max_accuracy_drop": max_accuracy_drop, "sensitivity": sensitivity,
        "activations": activations, "block_size": block_size,
    }  # fmt: skip
    if save_plan is not None:
        read = (checkpoint, data, eval_data, config, plan)
        check_writable(save_plan, "--save-plan", tuple(path for path in read if path is not None))
        check_replaceable_plan(save_plan)
    if dry_run:
        form: Form = "json" if as_json else "table"
        options = build_options(given, config, source_of(checkpoint))
        if options.plans_bits or save_plan is not None:
            show_plan(checkpoint, options, save_plan, form)
            return
        _show_curve(checkpoint, given, config, out, form)
        return
    if out is None:
        raise UsageError("give --out FOLDER for the new bundle, or --dry-run to write nothing")
    replaced = (out / HASHES).is_file()
    bundle = deploykit.export(
        checkpoint, out=out, config=config, progress=StageLines(Console(stderr=True)), **given
    )
    if save_plan is not None:
        save_plan_of(bundle, save_plan)
    if as_json:
        typer.echo(json.dumps(bundle.manifest, indent=2))
        return
    console = Console()
    console.print(layer_table(bundle.manifest))
    for line in legend(layer["operator"] for layer in bundle.manifest["layers"]):
        _say(console, line)
    if "allocation" in bundle.manifest:
        console.print(allocation_table(bundle.manifest["allocation"]["layers"]))
        for line in allocation_lines(bundle.manifest["allocation"]):
            _say(console, line)
    console.print(summary_table(bundle.manifest))
    warnings = warnings_of(bundle.manifest)
    for warning in warnings:
        _say(console, f"warning: {warning}")
    for line in (*source_lines(bundle.manifest), *feeding_lines(bundle.manifest)):
        _say(console, line)
    _say(console, f"The bundle is in {out}{', in place of the one before' if replaced else ''}")
    name = command_name()
    steps = [f"{name} verify {out}", f"{name} bench {out} --device host"]
    if any("`deploykit diagnose`" in warning for warning in warnings):
        steps.insert(0, f"{name} diagnose {out}")
    _say(console, f"Next: {'; '.join(steps)}")


def _bits(text: str | None) -> int | str | None:
    """A number where it is one; build_options tells what else is none."""
    return int(text) if text is not None and text.isdecimal() else text


def _show_curve(
    checkpoint: Path,
    given: dict[str, Any],
    config: Path | None,
    out: Path | None,
    form: Form,
) -> None:
    import json

    from rich.console import Console

    from deploykit.exporting.options import build_options, source_of
    from deploykit.pipeline import threshold_curve
    from deploykit_cli.curve import curve_json, curve_lines, curve_table, export_command
    from deploykit_cli.progress import StageLines, command_name

    options = build_options(given, config, source_of(checkpoint))
    curve = threshold_curve(checkpoint, options, StageLines(Console(stderr=True)))
    if form == "json":
        typer.echo(json.dumps(curve_json(curve), indent=2))
        return
    console = Console()
    console.print(curve_table(curve))
    for line in curve_lines(curve, export_command(command_name(), checkpoint, given, config, out)):
        _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
