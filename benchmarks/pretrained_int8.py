"""W8A8 of the pretrained EfficientNet-Lite0 on real images: accuracy, agreement, SQNR.

    python benchmarks/pretrained_int8.py --images DIR [--seeds 5] [--calibration mse]
        [--target any] [--rounding compensated] [--json FILE]

DIR: images named CLASS_*.jpg or .png (ImageNet classes). By seed, the sorted names are shuffled
(random.Random(seed)); the first 64 calibrate, the others test. Both runtimes compute the same
integers, so one row stands for both; every logit is compared. Needs Pillow.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from bounds import Bound, print_bounds
from removal_pretrained import read_images
from removal_sources import EFFICIENTNET, unfolded

CALIBRATING = 64
MIN_AGREEMENT, MIN_SQNR_DB, MIN_TOP1 = 0.985, 22.0, 0.795


@dataclass(frozen=True)
class Row:
    """One split. top1, agreement: shares of the tested images; sqnr_db: of all their logits."""

    seed: int
    tested: int
    float_top1: float
    top1: float
    agreement: float
    sqnr_db: float
    differing_logits: int
    seconds: float


@dataclass(frozen=True)
class Images:
    """images: [N, 3, H, W] as the network takes them; labels: [N]."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def measure(given: Images, seed: int, options: Mapping[str, Any]) -> Row:
    """Export with 64 images, run the others in both runtimes. options: of the export."""
    import onnx

    import deploykit
    from deploykit.runtime import litert, ort

    images, labels = given.images, given.labels
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    chosen, tested = order[:CALIBRATING], order[CALIBRATING:]
    with tempfile.TemporaryDirectory(prefix="deploykit-int8-") as folder:
        source, data = Path(folder) / "network.onnx", Path(folder) / "data.npz"
        onnx.save(unfolded(EFFICIENTNET), source)
        np.savez(data, inputs=images[chosen])
        start = perf_counter()
        made = deploykit.export(source, data=data, out=Path(folder) / "b", **options)
        seconds = perf_counter() - start
        files = {name: made.file(name).read_bytes() for name in (
            "model.float.onnx", "model.onnx", "model.tflite",
        )}  # fmt: skip
    name = made.manifest["inputs"][0]["name"]
    values = images[tested]
    (expected,) = ort.run(files["model.float.onnx"], {name: values}).values()
    (found,) = ort.run(files["model.onnx"], {name: values}).values()
    (lite,) = litert.run(files["model.tflite"], {name: values.transpose(0, 2, 3, 1)}).values()
    error = found.astype(np.float64) - expected
    answers, truth = found.argmax(1), labels[tested]
    return Row(
        seed, len(tested), float((expected.argmax(1) == truth).mean()),
        float((answers == truth).mean()), float((answers == expected.argmax(1)).mean()),
        float(10 * np.log10((expected.astype(np.float64) ** 2).sum() / (error**2).sum())),
        int((found != lite).sum()), seconds,
    )  # fmt: skip


def main() -> int:
    """One row per seed, their means, then the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calibration", default="mse")
    parser.add_argument("--target", help="as in `deploykit export`")
    parser.add_argument("--rounding", default="compensated")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    images = Images(*read_images(options.images))
    exporting = {
        "calibration": options.calibration, "target": options.target, "rounding": options.rounding,
    }  # fmt: skip
    rows = []
    print(f"{'seed':<6}{'float':>8}{'int8':>8}{'agree':>8}{'SQNR dB':>9}{'differ':>8}{'s':>7}")
    for seed in range(1, options.seeds + 1):
        row = measure(images, seed, exporting)
        rows.append(row)
        print(
            f"{row.seed:<6}{row.float_top1:>8.4f}{row.top1:>8.4f}{row.agreement:>8.4f}"
            f"{row.sqnr_db:>9.2f}{row.differing_logits:>8}{row.seconds:>7.1f}", flush=True
        )  # fmt: skip
    means = {
        name: float(np.mean([getattr(row, name) for row in rows]))
        for name in ("float_top1", "top1", "agreement", "sqnr_db")
    }
    print(
        "mean  " + "".join(f"{means[name]:>8.4f}" for name in ("float_top1", "top1", "agreement"))
    )
    if options.json:
        found = {"rows": [asdict(row) for row in rows], "means": means}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    first = rows[0]
    bounds = [
        Bound("seed 1, agreement with float", first.agreement, MIN_AGREEMENT, "at least"),
        Bound("seed 1, SQNR of the logits, dB", first.sqnr_db, MIN_SQNR_DB, "at least"),
        Bound("mean, agreement with float", means["agreement"], MIN_AGREEMENT, "at least"),
        Bound("mean, SQNR of the logits, dB", means["sqnr_db"], MIN_SQNR_DB, "at least"),
        Bound("mean, top-1", means["top1"], MIN_TOP1, "at least"),
        Bound("logits that differ between the files", sum(r.differing_logits for r in rows), 0),
    ]
    return print_bounds(bounds)


if __name__ == "__main__":
    sys.exit(main())
