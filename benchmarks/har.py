"""The wrist-sensor sample on people it never saw: every fold leaves one of ten subjects out.

    python benchmarks/har.py [--data watch_dataset.npy] [--subjects 1 2 ...] [--json FILE]

By left-out subject, on all of its windows: the dense twin in float, the posterior mean (gates as
evaluation has them), pruned, int8, and all weights in 4 bits (`--rounding sequential`); parameters
before and after, bytes of both files. Each fold calibrates on 128 of its training windows. FILE is
that of the package seglearn 1.2.5, needed where the package is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bounds import Bound, print_bounds

import deploykit
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.forward import prepared, run
from deploykit.posterior.loading import load_tensors
from deploykit.verify.metrics import accuracy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sample_models.har.data import (
    CALIBRATION_WINDOWS,
    SUBJECTS,
    Windows,
    choose_balanced,
    cut,
    read_recordings,
    split,
)

SAMPLE = Path(__file__).resolve().parent.parent / "sample_models" / "har"
BITS: Mapping[str, Mapping[str, Any]] = {
    "int8": {},
    "w4": {"bits": 4, "rounding": "sequential"},
}
FILES = ("model.onnx", "model.tflite")
STAGES = ("dense", "mean", "pruned", "int8", "w4")
LIMITS = {("mean", "dense"): 2.0, ("pruned", "mean"): 0.1, ("int8", "pruned"): 0.3,
          ("w4", "pruned"): 1.0}  # fmt: skip
"""Points that the first may be under the second, in the mean of all subjects."""
REMOVED = 0.5
"""Share of the parameters that has to be gone, in the mean of all subjects."""


@dataclass(frozen=True)
class Row:
    """One fold. shares: accuracy by stage, both files of a plan being equal; sizes: bytes by file.

    integers, differing: compared between reference and runtimes, over both files of both plans.
    """

    left_out: int
    windows: int
    shares: Mapping[str, float]
    parameters_before: int
    parameters_after: int
    sizes: Mapping[str, int]
    integers: int
    differing: int

    @property
    def removed(self) -> float:
        """Share of the parameters that is gone."""
        return 1 - self.parameters_after / self.parameters_before


def dense_accuracy(left_out: int, test: Windows) -> float:
    """Of the plain twin of the same fold, in float."""
    path = SAMPLE / "checkpoints" / f"subject-{left_out:02}.dense.pt"
    network = prepared(load_factory(f"{SAMPLE / 'model.py'}:dense_har")())
    load_tensors(network, load_checkpoint(path).tensors, str(path))
    return accuracy(run(network, test.inputs), test.labels)


def measure(windows: Windows, left_out: int, folder: Path) -> Row:
    """Export one fold in 8 and in 4 bits, with its left-out subject as evaluation data."""
    fold = split(windows, left_out)
    calibration = choose_balanced(fold.training, CALIBRATION_WINDOWS, 0)
    paths = [folder / "calibration.npz", folder / "test.npz"]
    for path, part in zip(paths, (calibration, fold.test), strict=True):
        np.savez(path, inputs=part.inputs, labels=part.labels)
    manifests = {
        name: deploykit.export(
            SAMPLE / "checkpoints" / f"subject-{left_out:02}.gated.pt",
            config=SAMPLE / "export.toml", data=paths[0], eval_data=paths[1],
            out=folder / name, **given,
        ).manifest
        for name, given in BITS.items()
    }  # fmt: skip
    found = manifests["int8"]
    shares = {"dense": dense_accuracy(left_out, fold.test)}
    shares |= {stage: found["accuracy"][stage] for stage in ("mean", "pruned")}
    for name, manifest in manifests.items():
        onnx, tflite = (manifest["accuracy"][file] for file in FILES)
        if onnx != tflite:
            raise RuntimeError(f"subject {left_out}, {name}: {onnx} and {tflite} in one plan")
        shares[name] = onnx
    parity = [one for manifest in manifests.values() for one in manifest["parity"]]
    return Row(
        left_out, len(fold.test), shares, found["removal"]["parameters_before"],
        found["removal"]["parameters_after"],
        {f"{name} {file}": manifests[name]["sizes"][file] for name in BITS for file in FILES},
        sum(one["integers"] for one in parity), sum(one["differing"] for one in parity),
    )  # fmt: skip


def mean_share(rows: Sequence[Row], stage: str) -> float:
    """Accuracy, every subject counting alike."""
    return float(np.mean([row.shares[stage] for row in rows]))


def spread(rows: Sequence[Row], stage: str) -> float:
    """Standard deviation between subjects (of a sample; 0 for one)."""
    return float(np.std([row.shares[stage] for row in rows], ddof=min(1, len(rows) - 1)))


def bounds_of(rows: Sequence[Row]) -> list[Bound]:
    """What the sample claims."""
    integers = sum(row.integers for row in rows)
    return [
        *(
            Bound(f"{stage}, points under {other}, mean of {len(rows)} subjects",
                  100 * (mean_share(rows, other) - mean_share(rows, stage)), limit)
            for (stage, other), limit in LIMITS.items()
        ),
        Bound("parameters removed, mean share", float(np.mean([row.removed for row in rows])),
              REMOVED, "at least"),
        Bound(f"differing of {integers:,} integers", sum(row.differing for row in rows), 0),
    ]  # fmt: skip


def table(rows: Sequence[Row]) -> list[str]:
    """One line by subject, then mean and deviation of the accuracies."""
    sizes = list(rows[0].sizes)
    widths = [len(name) + 2 for name in sizes]
    lines = [
        "left out  windows" + "".join(f"{stage:>8}" for stage in STAGES) + "  parameters left"
        + "".join(f"{name:>{width}}" for name, width in zip(sizes, widths, strict=True))
    ]  # fmt: skip
    for row in rows:
        left = f"{row.parameters_after:,} of {row.parameters_before:,}"
        lines.append(
            f"{row.left_out:>8}{row.windows:>9}"
            + "".join(f"{row.shares[stage]:>8.4f}" for stage in STAGES)
            + f"{left:>17}"
            + "".join(
                f"{row.sizes[name]:>{width},}" for name, width in zip(sizes, widths, strict=True)
            )
        )
    for name, figure in (("mean", mean_share), ("deviation", spread)):
        lines.append(f"{name:<17}" + "".join(f"{figure(rows, stage):>8.4f}" for stage in STAGES))
    return lines


def main() -> int:
    """Measure every fold, print the table and the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="watch_dataset.npy of seglearn 1.2.5")
    parser.add_argument("--subjects", type=int, nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    windows = cut(read_recordings(arguments.data))
    rows = []
    for left_out in arguments.subjects:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(windows, left_out, Path(folder)))
        print(f"subject {left_out} is measured", file=sys.stderr, flush=True)
    print("\n".join(table(rows)))
    if arguments.json:
        record = {
            "rows": [asdict(row) for row in rows],
            "mean": {stage: mean_share(rows, stage) for stage in STAGES},
            "deviation": {stage: spread(rows, stage) for stage in STAGES},
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return print_bounds(bounds_of(rows))


if __name__ == "__main__":
    sys.exit(main())
