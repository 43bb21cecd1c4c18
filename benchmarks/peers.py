"""deploykit beside the tools of the runtimes' own makers: size, latency, SQNR, seconds.

    python benchmarks/peers.py [--networks a,b] [--images DIR] [--calibration N] [--samples N]
        [--rounds N] [--peer-python PATH] [--json FILE]

Every network of benchmarks/networks and the pretrained EfficientNet-Lite0 is quantized to static
int8 from the same weights with the same calibration inputs by

    onnxruntime   deploykit; onnxruntime.quantization: quant_pre_process, quantize_static
    litert        deploykit; litert-torch and ai-edge-quantizer

and both files of a runtime, and a float32 one, are timed in interleaved rounds on one thread. A
ratio is the median over rounds with its 95 % interval. SQNR: of the logits against float, on
inputs that calibrated nothing; random, but for EfficientNet-Lite0 with --images, as
pretrained_int8.py reads them. Seconds: without imports, and of ours without the proofs (proof s).

The TFLite peers have an environment of their own: --peer-python, else build/peers/venv, made with
pinned versions (2 GB, minutes).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from children import run_children
from peers_measure import Row, Side, measure
from removal_latency_timing import Ratio

from deploykit.bench.summary import INTERVAL_MIN_ROUNDS
from deploykit.spec.arrays import AnyArray

MAX_RATIO_LOW = 1.02
"""Lower end of the interval of our time over theirs, on each network."""
MAX_MEAN = {"onnxruntime": 0.9, "litert": 0.7}
"""Geometric mean over the networks of our time over theirs."""
STRICT = "mobilenet-v3-large"
MAX_STRICT = {"onnxruntime": 0.7, "litert": 0.45}
"""The network that today's tools make slower than float: our time over theirs."""
MIN_FASTER = 1.6
"""Its float time over our int8 time."""


def inputs(name: str, options: argparse.Namespace) -> tuple[AnyArray, AnyArray]:
    """Calibrating and testing samples of a network."""
    from networks import ARCHITECTURES, SEQUENCES
    from removal_sources import EFFICIENTNET, EFFICIENTNET_SHAPE

    if name == EFFICIENTNET and options.images is not None:
        from removal_pretrained import read_images

        images, _ = read_images(options.images)
        order = list(range(len(images)))
        random.Random(0).shuffle(order)
        return images[order[: options.calibration]], images[order[-options.samples :]]
    known = {**ARCHITECTURES, **SEQUENCES}
    shape = EFFICIENTNET_SHAPE if name == EFFICIENTNET else known[name].input_shape
    generator = np.random.default_rng(0)
    first, second = (
        generator.normal(size=(count, *shape[1:])).astype(np.float32)
        for count in (options.calibration, options.samples)
    )
    return first, second


def row_of(record: dict[str, Any]) -> Row:
    """A row from the JSON of `asdict`."""
    sides = {name: Side(**record[name]) for name in ("ours", "theirs")}
    ratios = {name: Ratio(**record[name]) for name in ("ratio", "faster", "peer_faster")}
    return Row(**{**record, **sides, **ratios})


def print_rows(rows: Sequence[Row]) -> None:
    """One line each, by runtime."""
    print(
        f"{'network':<20}{'runtime':<12}{'MB ours':>8}{'theirs':>8}{'ms ours':>9}{'theirs':>8}"
        f"{'ratio':>7}{'95 %':>13}{'over float':>11}{'theirs':>8}{'SQNR dB':>8}{'theirs':>8}"
        f"{'s ours':>8}{'theirs':>8}{'proof s':>8}"
    )
    for row in sorted(rows, key=lambda row: row.runtime):
        print(
            f"{row.network:<20}{row.runtime:<12}{row.ours.bytes / 1e6:>8.2f}"
            f"{row.theirs.bytes / 1e6:>8.2f}{row.ours.ms:>9.3f}{row.theirs.ms:>8.3f}"
            f"{row.ratio.median:>7.3f}{row.ratio.low:>7.3f}-{row.ratio.high:.3f}"
            f"{row.faster.median:>10.2f}x{row.peer_faster.median:>7.2f}x"
            f"{row.ours.sqnr_db:>8.1f}{row.theirs.sqnr_db:>8.1f}"
            f"{row.ours.seconds:>8.1f}{row.theirs.seconds:>8.1f}{row.proof_seconds:>8.1f}"
        )


def bounds_of(rows: Sequence[Row]) -> list[Bound]:
    """What the project promises beside its peers."""
    found = []
    for runtime, limit in MAX_MEAN.items():
        ratios = [row.ratio.median for row in rows if row.runtime == runtime]
        if ratios:
            mean = float(np.exp(np.mean(np.log(ratios))))
            name = f"{runtime}: ours over theirs, geometric mean of {len(ratios)}"
            found.append(Bound(name, mean, limit))
    for row in rows:
        name = f"{row.network}, {row.runtime}"
        found.append(Bound(f"{name}: ours over theirs, lower end", row.ratio.low, MAX_RATIO_LOW))
        if row.network == STRICT:
            limit = MAX_STRICT[row.runtime]
            found.append(Bound(f"{name}: ours over theirs", row.ratio.median, limit))
            found.append(
                Bound(f"{name}: int8 over float", row.faster.median, MIN_FASTER, "at least")
            )
            found.append(
                Bound(f"{name}: SQNR, dB", row.ours.sqnr_db, row.theirs.sqnr_db, "at least")
            )
    return found


def child(name: str, options: argparse.Namespace) -> list[str]:
    """The command that measures one network."""
    command = [sys.executable, __file__, "--child", name, "--rounds", str(options.rounds)]
    command += ["--calibration", str(options.calibration), "--samples", str(options.samples)]
    command += ["--peer-python", str(options.peer_python)]
    return command + (["--images", str(options.images)] if options.images else [])


def main() -> int:
    """Measure every network in its own process, print the table, then the bounds."""
    from networks import SEQUENCES
    from peers_environment import peer_python
    from removal_latency import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", help="comma-separated; all by default")
    parser.add_argument("--images", type=Path, help="real images for EfficientNet-Lite0")
    parser.add_argument("--calibration", type=int, default=16, help="inputs that calibrate; 16")
    parser.add_argument("--samples", type=int, default=16, help="inputs that measure SQNR; 16")
    parser.add_argument("--rounds", type=int, default=8, help="6 at least")
    parser.add_argument("--peer-python", type=Path, help="the peers' interpreter")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < INTERVAL_MIN_ROUNDS:
        parser.error(f"--rounds {options.rounds}: an interval needs {INTERVAL_MIN_ROUNDS}")
    options.peer_python = peer_python(options.peer_python)
    if options.child:
        with tempfile.TemporaryDirectory(prefix="deploykit-peers-") as folder:
            found = measure(
                options.child, inputs(options.child, options), options.peer_python,
                options.rounds, Path(folder),
            )  # fmt: skip
        print(json.dumps({"rows": [asdict(row) for row in found]}))
        return 0
    names = options.networks.split(",") if options.networks else [*zoo(), *SEQUENCES]
    records, failed = run_children({name: child(name, options) for name in names})
    rows = [row_of(row) for record in records for row in record["rows"]]
    print_rows(rows)
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    if options.json:
        command = " ".join(["python benchmarks/peers.py", *sys.argv[1:]])
        whole = {"command": command, "rows": [asdict(row) for row in rows], "failed": failed}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return print_bounds([*bounds_of(rows), Bound("networks not measured", len(failed), 0)])


if __name__ == "__main__":
    sys.exit(main())
