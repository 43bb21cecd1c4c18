"""The main job on the sample checkpoint: export, verify, measure, and one table of it all.

    python benchmarks/demo.py [--out build/demo/bundle] [--rounds 8]

Prints each figure that has a bound, and exits 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bounds import Bound, print_bounds
from rich import box
from rich.console import Console
from rich.table import Table

import deploykit
from deploykit.exporting.data import load_samples
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.forward import prepared, run
from deploykit.posterior.loading import load_tensors
from deploykit.spec.bench import BenchReport
from deploykit.spec.inputs import only_input
from deploykit.spec.samples import Samples
from deploykit.verify.metrics import accuracy
from deploykit_cli.progress import StageLines
from deploykit_cli.tables import layer_table

SAMPLE = Path(__file__).resolve().parent.parent / "sample_models" / "lenet5"
INPUT_SHAPE = (1, 1, 28, 28)
DENSE_BYTES = 4 * 431_080
"""The dense twin's weights and biases in float32."""


def dense_accuracy(samples: Samples) -> float:
    """Accuracy of the dense twin, trained alone."""
    path = SAMPLE / "dense.pt"
    network = prepared(load_factory(f"{SAMPLE / 'model.py'}:lenet5")())
    load_tensors(network, load_checkpoint(path).tensors, str(path))
    assert samples.labels is not None
    return accuracy(run(network, samples.inputs), samples.labels)


def results_table(manifest: Any, dense: float, report: BenchReport, checkpoint: Path) -> Table:
    """Accuracy, size and latency of every stage, side by side."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left")
    table.add_column("stage")
    for heading in ("accuracy", "bytes", "times smaller", "latency ms (95 %)"):
        table.add_column(heading, justify="right")
    shares, sizes = manifest["accuracy"], manifest["sizes"]
    latencies = {(model.file, model.runtime): model.latency for model in report.models}
    rows: list[tuple[str, float, int | None, tuple[str, str] | None]] = [
        ("dense twin, float32", dense, DENSE_BYTES, None),
        ("Bayesian mean (checkpoint)", shares["mean"], checkpoint.stat().st_size, None),
        ("folded", shares["folded"], DENSE_BYTES, None),
        ("pruned, float ONNX", shares["pruned"], sizes["model.float.onnx"],
         ("model.float.onnx", "onnxruntime")),
        ("int8 ONNX", shares["model.onnx"], sizes["model.onnx"], ("model.onnx", "onnxruntime")),
        ("int8 TFLite", shares["model.tflite"], sizes["model.tflite"],
         ("model.tflite", "ai_edge_litert")),
    ]  # fmt: skip
    for name, share, size, key in rows:
        latency = latencies.get(key) if key else None
        interval = latency.interval_ms if latency else None
        table.add_row(
            name, f"{share:.4f}", f"{size:,}" if size else "",
            f"{DENSE_BYTES / size:.1f}" if size else "",
            "" if latency is None or interval is None
            else f"{latency.median_ms:.4f} ({interval[0]:.4f}-{interval[1]:.4f})",
        )  # fmt: skip
    return table


def training_lines() -> list[str]:
    """The shipped run's KL weight and result, and those of the run at weight 1 beside it."""
    training = json.loads((SAMPLE / "training.json").read_text())
    return [
        f"KL weight {run['settings']['kl_weight']:g}{note}: {run['pruned']['test_accuracy']:.4f} "
        f"pruned on 10,000 test images, {run['pruned']['percent_removed']:.1f} % of weights removed"
        for run, note in [
            (training["shipped"], " (this checkpoint)"),
            *((run, "") for run in training["others"]),
        ]
    ]


def bounds(manifest: Any, report_failed: bool) -> list[Bound]:
    """What this demo claims."""
    shares, sizes = manifest["accuracy"], manifest["sizes"]
    points = [100 * (shares["pruned"] - shares[file]) for file in ("model.onnx", "model.tflite")]
    removal = manifest["removal"]
    removed = 1 - removal["parameters_after"] / removal["parameters_before"]
    return [
        Bound("int8 ONNX, points under pruned", points[0], 0.3),
        Bound("int8 TFLite, points under pruned", points[1], 0.3),
        *(
            Bound(f"{found['runtime']}, differing integers of {found['integers']:,} over "
                  f"{found['samples']:,} inputs", found["differing"], 0)
            for found in manifest["parity"]
        ),
        Bound("masked against pruned, relative", removal["max_relative_difference"], 1e-5),
        Bound("weights physically removed", removed, 0.8, "at least"),
        Bound("model.tflite, times smaller than dense float32",
              DENSE_BYTES / sizes["model.tflite"], 16, "at least"),
        Bound("failed verification steps", int(report_failed), 0),
    ]  # fmt: skip


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo/bundle"))
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    console = Console()
    checkpoint = SAMPLE / "bayesian.pt"
    bundle = deploykit.export(
        checkpoint, config=SAMPLE / "export.toml", out=arguments.out,
        progress=StageLines(Console(stderr=True)),
    )  # fmt: skip
    console.print("verifying the bundle from its files alone")
    parity = deploykit.verify_bundle(bundle.path)
    console.print("measuring on this host")
    report = deploykit.bench_bundle(bundle.path, rounds=arguments.rounds)
    console.print()
    console.print(layer_table(bundle.manifest))
    dense = dense_accuracy(load_samples(SAMPLE / "test-2000.npz", only_input(INPUT_SHAPE)))
    console.print(results_table(bundle.manifest, dense, report, checkpoint))
    code = print_bounds(bounds(bundle.manifest, parity.failed))
    for line in training_lines():
        print(line)
    print(f"\nThe bundle is in {arguments.out}; next: .venv/bin/deploykit inspect {arguments.out}")
    return code


if __name__ == "__main__":
    sys.exit(main())
