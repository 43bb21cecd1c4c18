"""Accuracy of the sample on all 10,000 test images of Fashion-MNIST, stage by stage.

    python benchmarks/sample_accuracy.py [--data-dir FOLDER] [--target any] [--json FILE]

FOLDER holds the idx files of Fashion-MNIST (Debian: package dataset-fashion-mnist). The bundle is
exported anew, and every integer of both runtimes is compared with the reference on all images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from demo import SAMPLE, dense_accuracy
from rich.console import Console

import deploykit
from deploykit.spec.samples import Samples
from deploykit_cli.progress import StageLines

sys.path.insert(0, str(SAMPLE))
from data import DEBIAN_FOLDER, test_images

MAX_POINTS_UNDER_DENSE = 2.0
MAX_POINTS_LOST_TO_INT8 = 0.3


def bounds(accuracy: dict[str, float], manifest: Any) -> list[Bound]:
    """What the sample claims on the whole test set."""
    removal = manifest["removal"]
    lost = 100 * (accuracy["dense"] - accuracy["pruned"])
    return [
        Bound("pruned posterior mean, points under dense", lost, MAX_POINTS_UNDER_DENSE),
        Bound("weights physically removed",
              1 - removal["parameters_after"] / removal["parameters_before"], 0.8, "at least"),
        *(
            Bound(f"{file}, points under pruned", 100 * (accuracy["pruned"] - accuracy[file]),
                  MAX_POINTS_LOST_TO_INT8)
            for file in ("model.onnx", "model.tflite")
        ),
        *(
            Bound(f"{found['runtime']}, differing of {found['integers']:,} integers",
                  found["differing"], 0)
            for found in manifest["parity"]
        ),
    ]  # fmt: skip


def main() -> int:
    """Export with all test images as evaluation data and print every stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--target", help="as in `deploykit export`")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    images = test_images(arguments.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "test.npz"
        np.savez(data, inputs=images.inputs, labels=images.labels)
        bundle = deploykit.export(
            SAMPLE / "bayesian.pt", config=SAMPLE / "export.toml", eval_data=data,
            out=Path(folder) / "bundle", target=arguments.target,
            progress=StageLines(Console(stderr=True)),
        )  # fmt: skip
    manifest = bundle.manifest
    stages = {k: v for k, v in manifest["accuracy"].items() if k != "samples"}
    accuracy = {"dense": dense_accuracy(Samples(images.inputs, images.labels)), **stages}
    for stage, share in accuracy.items():
        print(f"{stage:<14} {share:.4f} of {len(images):,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(accuracy, indent=2) + "\n")
    return print_bounds(bounds(accuracy, manifest))


if __name__ == "__main__":
    sys.exit(main())
