"""A bundle's manifest as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from deploykit.spec.listing import listed
from deploykit_cli.confidence import confidence_rows
from deploykit_cli.folding import NARROWEST, Folded
from deploykit_cli.storage import storage_rows, stored_bits

if TYPE_CHECKING:
    from rich.table import Table

KERNEL_HEADINGS = {"onnxruntime": "ORT kernel", "litert": "LiteRT kernel"}


def layer_table(manifest: Any) -> Table:
    """Channels, bits, SQNR and kernels, one row per integer operator."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", min_width=NARROWEST)
    table.add_column("operator")
    for heading in ("channels", "bits", "MMACs", "SQNR dB"):
        table.add_column(heading, justify="right", no_wrap=heading != "bits")
    runtimes = list(manifest["layers"][0]["kernels"]) if manifest["layers"] else []
    for runtime in runtimes:
        table.add_column(KERNEL_HEADINGS.get(runtime, runtime))
    for layer in manifest["layers"]:
        before, after = layer["channels_before"], layer["channels_after"]
        sqnr = layer["sqnr_db"]
        table.add_row(
            Folded(layer["name"]),
            Folded(layer["operator"]),
            str(after) if before == after else f"{before} → {after}",
            Folded(stored_bits(layer)),
            f"{layer['macs'] / 1e6:.3f}" if layer["macs"] else "",
            "" if sqnr is None else f"{sqnr:.1f}",
            *(Folded(_kernel(layer, runtime)) for runtime in runtimes),
        )
    return table


MEANINGS = {
    "Island": "a part of the network that is computed in float, between integers",
    "Lookup": "a function of one tensor, from a table of its 256 integers",
    "Rearrange": "the same integers in another shape and order",
}
"""Operators of the integer network whose names are no operators of ONNX or TFLite."""


def legend(operators: Iterable[str]) -> list[str]:
    """What the names among `operators` mean that no format has, in one line."""
    met = set(operators)
    found = [f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in met]
    return [f"{'; '.join(found)}."] if found else []


def _kernel(layer: Any, runtime: str) -> str:
    """What a runtime computes a layer with, and what its file has before it."""
    *before, _ = layer.get("forms", {}).get(runtime, "").split(", ")
    return ", ".join((*before, str(layer["kernels"][runtime] or "")))


def summary_table(manifest: Any) -> Table:
    """Size, accuracy and parity of the whole."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False, pad_edge=False)

    def row(what: str, told: str) -> None:
        table.add_row(Folded(what), Folded(told))

    removal, sizes = manifest["removal"], manifest["sizes"]
    row("parameters", f"{removal['parameters_before']:,} → {removal['parameters_after']:,}")
    row("MACs", f"{removal['macs_before']:,} → {removal['macs_after']:,}")
    row("masked / pruned", f"at most {removal['max_relative_difference']:.0e} apart")
    dense = manifest["dense_float32_bytes"]
    for name, size in sizes.items():
        if name.startswith("model."):
            row(name, f"{size:,} bytes, {dense / size:.1f} times under dense float32")
    for what, told in storage_rows(manifest):
        row(what, told)
    if manifest.get("equalization"):
        row("equalized", equalization_line(manifest["equalization"]["chains"]))
    for found in manifest.get("without_effect", []):
        row("without effect", f"{', '.join(found['options'])}: {found['why']}")
    kept = [
        f"{layer['name']} ({layer['dead_channels']} of {layer['channels_after']})"
        for layer in manifest["layers"]
        if "dead_channels" in layer
    ]
    if kept:
        row("dead channels", f"{listed(kept)}, for aligned widths; --align none drops them")
    fold = manifest["fold"] or {"gates": [], "metrics": {}}
    for layer in fold["gates"]:
        by = f"{layer['rule']}, {layer['threshold']:.5g}"
        row(f"gates of {layer['layer']}", f"{layer['closed']} of {layer['gates']} closed ({by})")
    for what, told in _trained(manifest):
        row(what, told)
    accuracy = manifest["accuracy"]
    if accuracy is None:
        row("accuracy", _without_accuracy(manifest["evaluation"]))
    else:
        shares = [f"{k} {v:.4f}" for k, v in accuracy.items() if k != "samples"]
        row(f"accuracy ({accuracy['samples']:,})", ", ".join(shares))
    for what, told in confidence_rows(manifest):
        row(what, told)
    for stage, found in fold["metrics"].items():
        row(
            _stage(stage, fold),
            f"accuracy {found['accuracy']:.4f}, NLL {found['nll']:.3f} nats, "
            f"ECE {found['ece']:.3f}",
        )
    if "int16_pairs" in manifest:
        row("x86 without VNNI", _without_vnni(manifest))
    for what, told in _nearness(manifest):
        row(what, told)
    for found in manifest["parity"]:
        if "differing" not in found:
            continue
        row(
            f"reference / {found['runtime']}",
            f"{found['differing']} of {found['integers']:,} integers differ "
            f"({found['samples']:,} inputs){_steps(found, manifest['layers'])}",
        )
    islands = [layer["in_float"] for layer in manifest["layers"] if "in_float" in layer]
    if islands:
        counted = Counter(operator for island in islands for operator in island)
        row(
            f"in float ({len(islands)} island{'' if len(islands) == 1 else 's'})",
            ", ".join(f"{count} {operator}" for operator, count in counted.most_common()),
        )
    return table


def equalization_line(chains: Any) -> str:
    """How many channels were scaled, between which factors, and why others were not."""
    moved, channels = (sum(chain[key] for chain in chains) for key in ("moved", "channels"))
    pinned = [chain["pinned"][0] for chain in chains if chain["pinned"] and not chain["moved"]]
    told = f"{moved:,} of {channels:,} channels"
    if moved:
        smallest = min(chain["smallest_factor"] for chain in chains)
        largest = max(chain["largest_factor"] for chain in chains)
        told += f", by factors of {smallest:g} to {largest:g}"
    if pinned:
        reason, _ = Counter(pinned).most_common(1)[0]
        told += f"; pinned: {len(pinned)} of {len(chains)} chains of layers, such as where {reason}"
    return told


def _trained(manifest: Any) -> Iterator[tuple[str, str]]:
    """Bits that training chose or the file stated, and whether the plan keeps its integers."""
    whose = "trained" if manifest["source"]["kind"] == "checkpoint" else "stated"
    for kind, called in (("weight", f"{whose} weights"), ("activation", f"{whose} activations")):
        uses = [use for use in manifest.get("given", []) if use["kind"] == kind]
        kept = Counter(use["bits"] for use in uses if use["why"] is None)
        if uses:
            told = ", ".join(f"{count} of {bits} bits" for bits, count in sorted(kept.items()))
            yield called, f"integers kept: {told or 'none'}"
        for use in uses:
            if use["why"] is not None:
                yield called, f"{use['name']} ({use['bits']} bits) not kept: {use['why']}"
    bits = (manifest["fold"] or {}).get("trained_bits", {})
    for kind in ("weights", "activations"):
        wide = [f"{name} ({held[kind]})" for name, held in bits.items() if (held[kind] or 8) > 8]
        if wide:
            yield f"{kind} over 8 bits", f"{', '.join(wide)}: 8 bits here, chosen as for floats"


def _nearness(manifest: Any) -> Iterator[tuple[str, str]]:
    """Of weights alone in integers: what they cost, and how near runtimes are to the reference."""
    if manifest.get("activations") != "float":
        return
    left = sorted(manifest.get("float_weights", []), key=lambda one: -one["bytes"])
    if left:
        told = [f"{one['name']} ({one['operator']}, {one['bytes']:,} bytes)" for one in left]
        yield "weights in float32", listed(told)
    yield "float / integer weights", f"output SQNR {_db(manifest['weights_sqnr_db'])}"
    for found in manifest["parity"]:
        which = f"{found['output']}: SQNR" if "output" in found else "output SQNR"
        yield (
            f"reference / {found['runtime']}",
            f"{which} {_db(found['sqnr_db'])} ({found['samples']} inputs); the runtime rounds "
            f"rows of activations to int8, which explains {_db(found['expected_db'])}",
        )


def _db(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1f} dB"


def _without_accuracy(evaluation: Any) -> str:
    """Why accuracy was not measured, and what was."""
    if evaluation is None:
        return "not measured: give --eval-data with `labels`"
    return (
        f"not measured: --eval-data holds no `labels`; the integers of its "
        f"{evaluation['samples']:,} inputs were compared"
    )


def _steps(found: Any, layers: Any) -> str:
    """What kernels that round otherwise add to a runtime's integers."""
    if not found["one_step_in_islands"]:
        return ""
    islands = any("in_float" in layer for layer in layers)
    of = "float islands" if islands else "4-bit convolutions"
    return f"; {found['one_step_in_islands']:,} of {of} by one step"


def _without_vnni(manifest: Any) -> str:
    """Whether model.onnx gives the same integers where products are added in 16 bits."""
    pairs = manifest["int16_pairs"]
    if "model.onnx" not in manifest["sizes"]:
        return "the same integers: LiteRT adds in 32 bits everywhere"
    if pairs["overflowing"]:
        layers = listed(pairs["overflowing"])
        return f"other integers from model.onnx ({layers}); the same with --target any"
    if not pairs["narrowed"]:
        return "the same integers: no pair of weights exceeds 16 bits"
    return (
        f"the same integers: {pairs['narrowed']} of {pairs['channels']} weight channels on a "
        f"coarser scale, at most {pairs['growth']:.2f} times"
    )


def _stage(name: str, fold: Any) -> str:
    inputs = f"{fold['compared_inputs']:,}"
    if name == "monte_carlo":
        return f"{fold['monte_carlo_samples']} draws ({inputs})"
    return f"{name.replace('_', ' ')} ({inputs})"


def source_lines(manifest: Any) -> list[str]:
    """What of a checkpoint was taken, where that was not all of it as it is."""
    source = manifest["source"]
    taken, beside = source.get("unwrapped", []), source.get("beside", [])
    lines = []
    if taken:
        lines.append(f"Of the checkpoint: {', '.join(taken)}")
    if beside:
        lines.append(f"It holds {', '.join(beside)} too; to take that: --weights {beside[0]}")
    lines += [f"Left unread: {entry}" for entry in source.get("unread", [])]
    if source.get("layer_map"):
        lines.append(f"{len(source['layer_map'])} layers have other names in the file: --layer-map")
    return lines


def feeding_lines(manifest: Any) -> list[str]:
    """How a program feeds the written files and reads their answer."""
    lines = []
    for file, key, kind in (
        ("model.tflite", "tflite_shape", "tflite_dtype"), ("model.onnx", "shape", "dtype")
    ):  # fmt: skip
        if file not in manifest["sizes"]:
            continue
        ports = [
            f"{side} {port['name']!r} {port[kind]} {port[key]}{_quantization(port)}"
            for side, port in (
                *(("input", port) for port in manifest["inputs"]),
                *(("output", port) for port in manifest["outputs"]),
            )
        ]
        batch = "; any batch" if manifest["batch"] == "dynamic" else ""
        lines.append(f"{file}: {', '.join(ports)}{batch}")
    return lines


def _quantization(port: Any) -> str:
    if "below" in port:
        return f" (0 to {port['below'] - 1})"
    if "scale" not in port:
        return ""
    return f" (scale {port['scale']:.6g}, zero point {port['zero_point']})"
