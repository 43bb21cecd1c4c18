"""Wall time and peak memory of `deploykit export`, split by stage.

    python benchmarks/export_time.py [--images N] [--json FILE]

Each export runs in a process of its own: the LeNet-5 sample as it is, and a ResNet-18 (random
weights, 224x224, N random calibration images), whose files another process makes before. Importing
torch and the rest is a stage too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
from bounds import Bound, print_bounds

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "sample_models" / "lenet5"
LIMITS = {"lenet5": (20.0, 2.0), "resnet18": (20.0, 2.0)}
"""Seconds and GB that must not be passed, on two cores that do nothing else."""


class Stopwatch:
    """A Progress that keeps each stage's seconds and the peak memory at its end."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[object]:
        """See deploykit.spec.progress.Progress."""
        start = perf_counter()
        yield lambda done, total: None
        self.stages.append((name, perf_counter() - start, peak_gb()))


def peak_gb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def export_sample(out: Path, watch: Stopwatch) -> None:
    """The committed LeNet-5."""
    import deploykit

    deploykit.export(
        SAMPLE / "bayesian.pt", config=SAMPLE / "export.toml", out=out,
        progress=watch,  # type: ignore[arg-type]
    )  # fmt: skip


def prepare_resnet18(folder: Path, images: int) -> None:
    """What the user has before: a checkpoint of a deterministic ResNet-18, and images."""
    import torch
    from resnet18 import resnet18

    torch.save(resnet18().state_dict(), folder / "resnet18.pt")
    inputs = np.random.default_rng(0).normal(size=(images, 3, 224, 224)).astype(np.float32)
    np.savez(folder / "calibration.npz", inputs=inputs)


def export_resnet18(out: Path, watch: Stopwatch) -> None:
    """From the prepared files, as a user would."""
    import deploykit

    folder = out.parent
    deploykit.export(
        folder / "resnet18.pt", model=f"{HERE / 'resnet18.py'}:resnet18",
        input_shape=(1, 3, 224, 224), data=folder / "calibration.npz", prune_rule="none",
        out=out, progress=watch,  # type: ignore[arg-type]
    )  # fmt: skip


def child(model: str, folder: Path) -> None:
    """Export one model and print its stages as JSON."""
    watch = Stopwatch()
    start = perf_counter()
    with watch.stage("import torch and onnx"):
        import torch.onnx  # noqa: F401

        import deploykit.pipeline  # noqa: F401
    EXPORTS[model](folder / "bundle", watch)
    print(json.dumps({"stages": watch.stages, "seconds": perf_counter() - start,
                      "peak_gb": peak_gb()}))  # fmt: skip


EXPORTS = {"lenet5": export_sample, "resnet18": export_resnet18}


def in_own_process(*arguments: str | Path) -> str:
    """What this script prints with these arguments."""
    command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    """Run both exports and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64, help="calibration images of ResNet-18")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", choices=["prepare", *EXPORTS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child == "prepare":
        prepare_resnet18(arguments.folder, arguments.images)
        return 0
    if arguments.child:
        child(arguments.child, arguments.folder)
        return 0
    figures, bounds = {}, []
    for model, (seconds, gigabytes) in LIMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            in_own_process(
                "--child", "prepare", "--folder", folder, "--images", str(arguments.images)
            )
            printed = in_own_process("--child", model, "--folder", folder)
        found = json.loads(printed.splitlines()[-1])
        figures[model] = found
        print(f"{model}: {found['seconds']:.1f} s, peak {found['peak_gb']:.2f} GB")
        for name, took, peak in found["stages"]:
            print(f"  {name:<28} {took:7.2f} s   peak so far {peak:5.2f} GB")
        bounds.append(Bound(f"{model}, seconds", found["seconds"], seconds))
        bounds.append(Bound(f"{model}, peak GB", found["peak_gb"], gigabytes))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return print_bounds(bounds)


if __name__ == "__main__":
    sys.exit(main())
