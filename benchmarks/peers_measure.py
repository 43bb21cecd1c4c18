"""One network as int8 by deploykit and by each runtime's own tools: size, speed, error, time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from children import last_line
from export_time import Stopwatch
from removal_latency_timing import Ratio, Rounds, time_rounds
from removal_sources import state_file, unfolded

from deploykit.spec.arrays import AnyArray

HERE = Path(__file__).resolve().parent
PROOF = frozenset(("prove parity", "measure accuracy", "golden inputs"))
"""Stages of an export that the peers have nothing of."""


@dataclass(frozen=True)
class Side:
    """One int8 file. sqnr_db: its worst output against float, on inputs that calibrated nothing.

    seconds: without imports, and of ours without what PROOF names.
    """

    bytes: int
    ms: float
    sqnr_db: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One network on one runtime.

    ratio: our int8 time over theirs; faster, peer_faster: float time over int8 time. proof_seconds:
    what our export took beside `ours.seconds`.
    """

    network: str
    runtime: str
    ours: Side
    theirs: Side
    ratio: Ratio
    faster: Ratio
    peer_faster: Ratio
    float_ms: float
    proof_seconds: float


def measure(
    name: str, samples: Sequence[AnyArray], python: Path, rounds: int, folder: Path
) -> list[Row]:
    """Both runtimes. samples: calibrating and testing ones, [N, C, H, W] float32 each.

    python: the interpreter of the TFLite peers. Everything is written into `folder`.

    Raises RuntimeError with the last words of a tool that failed.
    """
    from deploykit.emit.onnx_file import read_float_onnx
    from deploykit.emit.tflite_float import write_float_tflite
    from deploykit.runtime import litert, ort

    calibrating, testing = samples
    source, data = folder / "network.onnx", folder / "calibration.npz"
    onnx.save(unfolded(name), source)
    np.savez(data, inputs=calibrating)
    seconds, proof = _export(source, data, folder / "bundle")
    ort_seconds = run_tool([sys.executable, str(HERE / "peers_ort.py"), "--model", str(source)],
                       data, folder / "theirs.onnx")  # fmt: skip
    command = [str(python), str(HERE / "peers_litert.py"), "--network", name]
    lite_seconds = run_tool(
        [*command, "--state", str(state_file(name))], data, folder / "theirs.tflite"
    )
    floats = folder / "bundle" / "model.float.onnx"
    lite = folder / "float.tflite"
    lite.write_bytes(write_float_tflite(read_float_onnx(floats.read_bytes())))
    expected = outputs_of(ort.run, floats, testing)
    found = []
    for runtime, run, flat, ours, theirs, took in (
        ("onnxruntime", ort.run, floats, "model.onnx", "theirs.onnx", ort_seconds),
        ("litert", litert.run, lite, "model.tflite", "theirs.tflite", lite_seconds),
    ):
        files = {"ours": folder / "bundle" / ours, "theirs": folder / theirs}
        timed = time_rounds({"float": flat, **files}, rounds)
        sides = {
            label: _side(
                path, timed, label, least_sqnr(expected, outputs_of(run, path, testing)), spent
            )
            for (label, path), spent in zip(files.items(), (seconds, took), strict=True)
        }
        ratio = timed.ratio("ours", "theirs")
        faster, peer_faster = (timed.ratio("float", label) for label in files)
        row = Row(name, runtime, **sides, ratio=ratio, faster=faster, peer_faster=peer_faster,
                  float_ms=timed.ms("float"), proof_seconds=proof)  # fmt: skip
        found.append(row)
    return found


def _side(path: Path, timed: Rounds, label: str, sqnr_db: float, seconds: float) -> Side:
    return Side(path.stat().st_size, timed.ms(label), sqnr_db, seconds)


def _export(source: Path, data: Path, out: Path) -> tuple[float, float]:
    """(seconds of the export, seconds of its proofs)."""
    import deploykit

    watch, start = Stopwatch(), perf_counter()
    deploykit.export(source, data=data, out=out, progress=watch)  # type: ignore[arg-type]
    whole = perf_counter() - start
    proof = sum(took for stage, took, _ in watch.stages if stage in PROOF)
    return whole - proof, proof


def run_tool(command: list[str], data: Path, out: Path) -> float:
    """Seconds that a peer says its steps took."""
    done = subprocess.run(
        [*command, "--data", str(data), "--out", str(out)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{Path(command[1]).name}: {last_line(done)}")
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return sum(steps.values())


def outputs_of(
    run: Callable[[bytes, Mapping[str, AnyArray]], Mapping[str, AnyArray]],
    file: Path,
    inputs: AnyArray,
) -> list[AnyArray]:
    """Every output in NCHW, in the order of the float graph's."""
    data = file.read_bytes()
    if file.suffix == ".onnx":
        graph = onnx.load_from_string(data).graph
        results = run(data, {graph.input[0].name: inputs})
        return [results[port.name] for port in graph.output]
    port, *_ = _ports(data)
    laid = inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs
    results = run(data, {port: np.ascontiguousarray(laid)})
    listed = [results[name] for name in sorted(results)]
    return [one.transpose(0, 3, 1, 2) if one.ndim == 4 else one for one in listed]


def _ports(data: bytes) -> list[str]:
    """Names of a TFLite file's inputs, its signature's."""
    from ai_edge_litert.interpreter import Interpreter

    found: Any = Interpreter(model_content=data).get_signature_list()
    (signature,) = found.values()
    return [str(name) for name in signature["inputs"]]


def least_sqnr(expected: Sequence[AnyArray], found: Sequence[AnyArray]) -> float:
    """10 log10(sum x^2 / sum (y - x)^2) of the output where it is least.

    Raises ValueError where shapes differ: the outputs are not the same ones.
    """
    least = float("inf")
    for before, after in zip(expected, found, strict=True):
        if before.shape != after.shape:
            raise ValueError(f"an output is {after.shape} and not {before.shape}")
        signal = before.astype(np.float64)
        noise = float(((after - signal) ** 2).sum())
        least = min(least, float(10 * np.log10((signal**2).sum() / noise)))
    return least
