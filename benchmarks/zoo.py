"""Int8 export of the architectures people ship: what agrees, what is fast, how long it takes.

    python benchmarks/zoo.py [--networks a,b] [--samples N] [--calibration N] [--latency]
        [--rounds N] [--rounding compensated] [--json FILE]

Every network of benchmarks/networks and the pretrained EfficientNet-Lite0 is exported to W8A8 in
both formats (batch norms not folded before, random inputs, each in a process of its own). Every
integer of every tensor is compared between the reference, ONNX Runtime and LiteRT on `--samples`
inputs. Listed too: operators that no fast kernel computes, TRANSPOSE and PAD left in the TFLite
file, SQNR of the output, and the seconds of each stage.

--latency: int8 against float32 in both runtimes, one thread, interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from children import run_children
from export_time import Stopwatch

FAST: Mapping[str, frozenset[str]] = {
    "onnxruntime": frozenset(
        (
            "QLinearConv", "QLinearAdd", "QLinearMul", "QGemm", "QLinearGlobalAveragePool",
            "QLinearSigmoid", "MaxPool", "Concat", "Slice", "Split", "Flatten", "Gather",
            "DepthToSpace", "SpaceToDepth", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
        )
    ),
    "litert": frozenset(("XNNPACK",)),
}  # fmt: skip
"""Kernels that compute on integers, or move them."""
MOVED = frozenset(("Flatten", "Gather", "Rearrange", "Reshape", "Slice"))
"""Operators of the plan that put integers elsewhere."""
MOVES = ("TRANSPOSE", "PAD", "PADV2")


@dataclass(frozen=True)
class Row:
    """One network.

    differing: integers by runtime, of `compared` each. islands: parts in float; one_step: their
    integers that a runtime rounds to the next step, by runtime. slow: by runtime, operators by
    kernel that is none of FAST. moves: operators of the TFLite file that only lay out. faster:
    float time over int8 time by runtime, with its 95 % interval; None where it was not asked for.
    """

    network: str
    layers: int
    compared: int
    differing: Mapping[str, int]
    islands: int
    one_step: Mapping[str, int]
    slow: Mapping[str, Mapping[str, int]]
    moves: Mapping[str, int]
    sqnr_db: float
    bytes: Mapping[str, int]
    seconds: float
    stages: Mapping[str, float]
    nudges: int
    faster: Mapping[str, Mapping[str, float]] | None


def measure(name: str, options: argparse.Namespace) -> Row:
    """Export one network and look at what came out."""
    import onnx
    from removal_sources import unfolded

    import deploykit
    from deploykit.emit.tflite_file import parse_tflite

    model = unfolded(name)
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="deploykit-zoo-") as folder:
        out, source = Path(folder) / "bundle", Path(folder) / f"{name}.onnx"
        onnx.save(model, source)
        samples = {
            "data.npz": options.calibration,
            "eval.npz": options.samples,
        }
        for file, count in samples.items():
            inputs = generator.normal(size=(count, *shape[1:])).astype(np.float32)
            np.savez(Path(folder) / file, inputs=inputs)
        watch, start = Stopwatch(), perf_counter()
        made = deploykit.export(
            source, data=Path(folder) / "data.npz", eval_data=Path(folder) / "eval.npz", out=out,
            rounding=options.rounding, progress=watch,  # type: ignore[arg-type]
        )  # fmt: skip
        seconds, manifest = perf_counter() - start, made.manifest
        plan = json.loads((out / "plan.json").read_text())
        codes = Counter(
            one.code for one in parse_tflite((out / "model.tflite").read_bytes()).operators
        )
        faster = _latencies(out, options.rounds) if options.latency else None
    parity = {one["runtime"]: one for one in manifest["parity"]}
    least = min(manifest["sqnr_db"][tensor] for tensor in plan["network"]["outputs"].values())
    return Row(
        name, len(manifest["layers"]), min(one["integers"] for one in parity.values()),
        {runtime: one["differing"] for runtime, one in parity.items()},
        sum("in_float" in layer for layer in manifest["layers"]),
        {runtime: one["one_step_in_islands"] for runtime, one in parity.items()},
        {runtime: _slow(manifest, runtime) for runtime in parity},
        {code: codes[code] for code in MOVES if codes[code]},
        least,
        {file: manifest["sizes"][file] for file in ("model.onnx", "model.tflite")},
        seconds, {stage: took for stage, took, _ in watch.stages},
        sum(proof["scale_nudges"] for proof in plan["proofs"]), faster,
    )  # fmt: skip


def _slow(manifest: Mapping[str, Any], runtime: str) -> dict[str, int]:
    """Kernels that are none of FAST. A move has none where the runtime took it into another."""
    found = (
        layer["kernels"][runtime]
        for layer in manifest["layers"]
        if "in_float" not in layer
        and (layer["kernels"][runtime] is not None or layer["operator"] not in MOVED)
    )
    return dict(Counter(str(kernel) for kernel in found if kernel not in FAST[runtime]))


def _latencies(bundle: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Float time over int8 time, each runtime apart."""
    from removal_latency_timing import time_rounds

    from deploykit.emit.onnx_file import read_float_onnx
    from deploykit.emit.tflite_float import write_float_tflite

    floats = bundle / "model.float.onnx"
    lite = bundle.parent / "float.tflite"
    lite.write_bytes(write_float_tflite(read_float_onnx(floats.read_bytes())))
    pairs = {
        "onnxruntime": (floats, bundle / "model.onnx"),
        "litert": (lite, bundle / "model.tflite"),
    }
    found = {}
    for runtime, (float_file, integer_file) in pairs.items():
        timed = time_rounds({"float": float_file, "int8": integer_file}, rounds)
        faster = timed.ratio("float", "int8")
        found[runtime] = {
            **asdict(faster),
            "float_ms": timed.ms("float"),
            "int8_ms": timed.ms("int8"),
        }
    return found


def print_rows(rows: Sequence[Row]) -> None:
    """One line each."""
    print(
        f"{'network':<20}{'layers':>7}{'integers':>13}{'differ':>8}{'islands':>8}{'1 step':>7}"
        f"{'SQNR dB':>9}{'MB onnx':>9}{'MB tflite':>10}{'nudges':>7}{'s':>6}  "
        f"{'int8 over float (ORT; LiteRT)':<36}slow operators"
    )
    for row in rows:
        slow = "; ".join(
            f"{runtime}: " + ", ".join(f"{count} {kernel}" for kernel, count in kernels.items())
            for runtime, kernels in (*row.slow.items(), ("layout", row.moves))
            if kernels
        )
        faster = (
            ""
            if row.faster is None
            else "; ".join(
                f"{one['median']:.2f}x ({one['low']:.2f}-{one['high']:.2f})"
                for one in row.faster.values()
            )
        )
        print(
            f"{row.network:<20}{row.layers:>7}{row.compared:>13,}{sum(row.differing.values()):>8}"
            f"{row.islands:>8}{max(row.one_step.values()):>7}"
            f"{row.sqnr_db:>9.1f}{row.bytes['model.onnx'] / 1e6:>9.2f}"
            f"{row.bytes['model.tflite'] / 1e6:>10.2f}{row.nudges:>7}{row.seconds:>6.1f}  "
            f"{faster:<36}{slow or 'none'}"
        )


def child(name: str, options: argparse.Namespace) -> list[str]:
    """The command that measures one network."""
    command = [sys.executable, __file__, "--child", name, "--samples", str(options.samples)]
    command += ["--calibration", str(options.calibration), "--rounds", str(options.rounds)]
    command += ["--rounding", options.rounding]
    return command + (["--latency"] if options.latency else [])


def main() -> int:
    """Export every network in its own process, print the table, then the bounds."""
    from networks import SEQUENCES
    from removal_latency import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", help="comma-separated; all by default")
    parser.add_argument("--samples", type=int, default=32, help="inputs that are compared; 32")
    parser.add_argument("--calibration", type=int, default=16, help="inputs that calibrate; 16")
    parser.add_argument("--latency", action="store_true", help="time int8 against float32")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rounding", default="compensated", help="of weights; compensated")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(asdict(measure(options.child, options))))
        return 0
    names = options.networks.split(",") if options.networks else [*zoo(), *SEQUENCES]
    records, failed = run_children({name: child(name, options) for name in names})
    rows = [Row(**record) for record in records]
    print_rows(rows)
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    if options.json:
        found = {"rows": [asdict(row) for row in rows], "failed": failed}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    bounds = [
        Bound(f"{row.network}, {runtime}: differing integers", count, 0)
        for row in rows
        for runtime, count in row.differing.items()
    ]
    bounds += [
        Bound(f"{row.network}: TRANSPOSE left", row.moves.get("TRANSPOSE", 0), 0)
        for row in rows
        if not row.islands
    ]
    return print_bounds([*bounds, Bound("networks without an int8 form", len(failed), 0)])


if __name__ == "__main__":
    sys.exit(main())
