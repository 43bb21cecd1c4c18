"""A bundle's manifest as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

KERNEL_HEADINGS = {"onnxruntime": "ORT kernel", "litert": "LiteRT kernel"}


def layer_table(manifest: Any) -> Table:
    """Channels, bits, SQNR and kernels, one row per integer operator."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("operator", overflow="fold")
    for heading in ("channels", "bits", "MMACs", "SQNR dB"):
        table.add_column(heading, justify="right", no_wrap=True)
    runtimes = list(manifest["layers"][0]["kernels"]) if manifest["layers"] else []
    for runtime in runtimes:
        table.add_column(KERNEL_HEADINGS.get(runtime, runtime), overflow="fold")
    for layer in manifest["layers"]:
        before, after = layer["channels_before"], layer["channels_after"]
        sqnr = layer["sqnr_db"]
        table.add_row(
            layer["name"],
            layer["operator"],
            str(after) if before == after else f"{before} → {after}",
            str(layer["bits"] or ""),
            f"{layer['macs'] / 1e6:.3f}" if layer["macs"] else "",
            "" if sqnr is None else f"{sqnr:.1f}",
            *(str(layer["kernels"][runtime] or "") for runtime in runtimes),
        )
    return table


def summary_table(manifest: Any) -> Table:
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
