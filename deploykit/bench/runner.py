"""Times one model file in this process and prints one JSON object: copy this file anywhere, run it.

    python runner.py --model model.onnx --runs 100 --cpu 3 [--inputs in.npz] [--dump out.npz]

Needs Python, numpy, and one runtime: onnxruntime for .onnx, ai_edge_litert or tflite_runtime for
.tflite. Imports nothing of deploykit, and keeps to what Python 3.9 runs, for old devices.

One inference is: inputs handed to the runtime, the graph run, every output read back as numpy.
Times are integers in nanoseconds (`_ns`, monotonic clock), memory in bytes; null is unknown here.
Exit codes: 0 done, 1 failed, 4 no runtime for this file can be imported; the last line on stderr
says why. `load_ns` is the making of the session alone, without importing the runtime.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

SCHEMA = "deploykit.runner/1"
WINDOW = 10
AGREEMENT = 0.02
NO_RUNTIME = 4


class RunnerError(Exception):
    """Told as one sentence on stderr."""

    exit_code = 1


class NoRuntimeError(RunnerError):
    """The file cannot be run here at all."""

    exit_code = NO_RUNTIME


class Session(Protocol):
    """A loaded model. shapes, dtypes: of its inputs by name, unknown sizes taken as 1."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, Any]

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run once and give every output by name."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the runtime says about how it runs the graph."""
        ...


class Runtime(Protocol):
    """A runtime that was imported."""

    name: str
    version: str

    def load(self, model: Path, threads: int) -> Session:
        """Make a session of a model file."""
        ...


class OnnxRuntime:
    """onnxruntime on the CPU, sequential, all graph optimizations."""

    name = "onnxruntime"

    def __init__(self) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        self.module = _import_first("onnxruntime")
        self.version = str(self.module.__version__)

    def load(self, model: Path, threads: int) -> Session:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return OnnxSession(
            self.module.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        )


class OnnxSession:
    """An onnxruntime session."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.shapes = {
            port.name: tuple(size if isinstance(size, int) else 1 for size in port.shape)
            for port in session.get_inputs()
        }
        self.dtypes = {port.name: _onnx_dtype(port) for port in session.get_inputs()}
        self.outputs = [port.name for port in session.get_outputs()]

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        results = self.session.run(None, inputs)
        return {name: results[place] for place, name in enumerate(self.outputs)}

    def facts(self) -> dict[str, Any]:
        return {"providers": self.session.get_providers(), "nodes": None}


class LiteRt:
    """LiteRT, or its predecessor tflite_runtime, with the delegates it picks itself (XNNPACK)."""

    def __init__(self) -> None:
        self.module = _import_first("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
        self.name = self.module.__name__.partition(".")[0]
        self.version = str(import_module(self.name).__version__)

    def load(self, model: Path, threads: int) -> Session:
        interpreter = self.module.Interpreter(model_path=str(model), num_threads=threads)
        interpreter.allocate_tensors()
        return LiteRtSession(interpreter)


class LiteRtSession:
    """A LiteRT interpreter."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter = interpreter
        details = interpreter.get_input_details()
        self.index = {port["name"]: port["index"] for port in details}
        self.shapes = {port["name"]: tuple(int(n) for n in port["shape"]) for port in details}
        self.dtypes = {port["name"]: np.dtype(port["dtype"]) for port in details}
        self.outputs = {port["name"]: port["index"] for port in interpreter.get_output_details()}

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for name, values in inputs.items():
            self.interpreter.set_tensor(self.index[name], values)
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(index) for name, index in self.outputs.items()}

    def facts(self) -> dict[str, Any]:
        try:
            names = Counter(node["op_name"] for node in self.interpreter._get_ops_details())
        except (AttributeError, RuntimeError, ValueError):
            return {"providers": None, "nodes": None}
        return {"providers": None, "nodes": dict(names)}


RUNTIMES: dict[str, Callable[[], Runtime]] = {".onnx": OnnxRuntime, ".tflite": LiteRt}


def _import_first(*names: str) -> Any:
    reasons = []
    for name in names:
        try:
            return import_module(name)
        except ImportError as error:
            reasons.append(f"{name}: {error}")
    raise NoRuntimeError(f"no runtime can be imported ({'; '.join(reasons)}); install one")


def _onnx_dtype(port: Any) -> Any:
    element = port.type[len("tensor(") : -1]
    try:
        return np.dtype({"float": "float32", "double": "float64"}.get(element, element))
    except TypeError:
        raise RunnerError(f"input {port.name} has type {port.type}, which numpy lacks") from None


def batches(session: Session, given: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Inputs of one inference each: slices of the given arrays, or one seeded random batch.

    Random floats are uniform in [0, 1), random integers of 8 bits uniform over their whole type.
    Wider ones are rows of a table (token ids): 0, which every table has.
    """
    if given is None:
        return [_random_batch(session)]
    names = list(session.shapes)
    if len(names) == 1 and len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    if set(given) != set(names):
        raise RunnerError(f"--inputs holds {sorted(given)}, but the model reads {sorted(names)}")
    counts = {_batch_count(session, name, values) for name, values in given.items()}
    if len(counts) > 1:
        raise RunnerError(f"the arrays of --inputs hold different numbers of batches: {counts}")
    return [
        {name: _slice(session, name, values, batch) for name, values in given.items()}
        for batch in range(counts.pop())
    ]


def _random_batch(session: Session) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    batch = {}
    for name, shape in session.shapes.items():
        dtype = session.dtypes[name]
        if dtype.kind in "iu" and dtype.itemsize > 1:
            batch[name] = np.zeros(shape, dtype)
        elif dtype.kind in "iu":
            limits = np.iinfo(dtype)
            batch[name] = generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            batch[name] = generator.random(shape).astype(dtype)
    return batch


def _batch_count(session: Session, name: str, values: Any) -> int:
    shape, dtype = session.shapes[name], session.dtypes[name]
    fits = values.ndim == len(shape) and values.shape[1:] == shape[1:] and values.dtype == dtype
    if not fits or len(values) == 0 or len(values) % shape[0]:
        raise RunnerError(
            f"--inputs gives {name} as {values.dtype} {list(values.shape)}, but the model reads "
            f"{dtype} {list(shape)}, with any multiple of {shape[0]} in front"
        )
    return len(values) // int(shape[0])


def _slice(session: Session, name: str, values: Any, batch: int) -> Any:
    size = session.shapes[name][0]
    return np.ascontiguousarray(values[batch * size : (batch + 1) * size])


class Stopwatch:
    """Times inferences, going round the batches."""

    def __init__(self, session: Session, inputs: list[dict[str, Any]]) -> None:
        self.session = session
        self.inputs = inputs
        self.next = 0

    def time_ns(self) -> int:
        """Duration of one inference."""
        batch = self.inputs[self.next % len(self.inputs)]
        self.next += 1
        start = time.perf_counter_ns()
        self.session.infer(batch)
        return time.perf_counter_ns() - start


def is_steady(samples: list[int]) -> bool:
    """Medians of the last two windows agree within 2 %, and the slope over both adds up to less.

    The slope is Theil and Sen's: the median over all pairs of samples.
    """
    if len(samples) < 2 * WINDOW:
        return False
    last = samples[-2 * WINDOW :]
    before, after = statistics.median(last[:WINDOW]), statistics.median(last[WINDOW:])
    slope = statistics.median(
        (last[j] - last[i]) / (j - i) for i in range(len(last)) for j in range(i + 1, len(last))
    )
    allowed = AGREEMENT * after
    return abs(after - before) <= allowed and abs(slope) * len(last) <= allowed


def warm_up(stopwatch: Stopwatch, windows: int, seconds: float) -> dict[str, Any]:
    """Run windows of 10 until steady, at most `windows` of them or `seconds` (after the second)."""
    samples: list[int] = []
    end = time.monotonic() + seconds
    while not is_steady(samples) and len(samples) < windows * WINDOW:
        if len(samples) >= 2 * WINDOW and time.monotonic() > end:
            break
        samples += [stopwatch.time_ns() for _ in range(WINDOW)]
    return {"samples_ns": samples, "window": WINDOW, "settled": is_steady(samples)}


def peak_memory_bytes() -> int | None:
    """VmHWM of this process; None where /proc does not tell."""
    value = _status_field("VmHWM")
    return None if value is None else int(value.split()[0]) * 1024


def _status_field(field: str) -> str | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None


def pin(cpu: int | None) -> None:
    """Keep this process, and every thread it starts from here on, on one core."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise RunnerError(f"cannot pin to core {cpu}: {error.strerror}; name another") from error


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Do everything that the command line asks for."""
    pin(options.cpu)
    model = options.model
    if not model.is_file():
        raise RunnerError(f"{model} does not exist")
    if model.suffix not in RUNTIMES:
        raise RunnerError(f"{model.name}: no runtime reads {model.suffix}, only {list(RUNTIMES)}")
    memory_at_start = peak_memory_bytes()
    runtime = RUNTIMES[model.suffix]()
    memory_with_runtime = peak_memory_bytes()
    start = time.perf_counter_ns()
    session = runtime.load(model, options.threads)
    load_ns = time.perf_counter_ns() - start
    inputs = batches(session, None if options.inputs is None else dict(np.load(options.inputs)))
    stopwatch = Stopwatch(session, inputs)
    first_ns = stopwatch.time_ns()
    warmup = warm_up(stopwatch, options.warmup_windows, options.warmup_seconds)
    samples_ns = [stopwatch.time_ns() for _ in range(options.runs)]
    memory_at_end = peak_memory_bytes()
    if options.dump is not None:
        dump(session, inputs, options.dump)
    return {
        "schema": SCHEMA,
        "runtime": runtime.name,
        "runtime_version": runtime.version,
        "load_ns": load_ns,
        "first_inference_ns": first_ns,
        "warmup": warmup,
        "samples_ns": samples_ns,
        "memory": {
            "start_bytes": memory_at_start,
            "with_runtime_bytes": memory_with_runtime,
            "peak_bytes": memory_at_end,
        },
        "threads": options.threads,
        "cpu": options.cpu,
        "affinity": _status_field("Cpus_allowed_list"),
        "facts": session.facts(),
        "inputs": "random" if options.inputs is None else sha256(options.inputs),
        "model_sha256": sha256(model),
        "model_bytes": model.stat().st_size,
        "runner_sha256": sha256(Path(__file__)),
        "python_version": platform.python_version(),
        "numpy_version": np.__version__,
        "machine": platform.machine(),
    }


def dump(session: Session, inputs: list[dict[str, Any]], path: Path) -> None:
    """Write every output of every batch, joined along the first axis, by output name."""
    results = [session.infer(batch) for batch in inputs]
    joined: dict[str, Any] = {
        name: np.concatenate([result[name] for result in results]) for name in results[0]
    }
    np.savez(path, **joined)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time one model file; print one JSON object.")
    parser.add_argument("--model", type=Path, required=True, help=".onnx or .tflite")
    parser.add_argument("--runs", type=int, default=100, help="timed inferences")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", type=int, help="core to stay on; left out: anywhere")
    parser.add_argument("--warmup-windows", type=int, default=50, help="cap, in windows of 10")
    parser.add_argument("--warmup-seconds", type=float, default=10.0, help="cap, in time")
    parser.add_argument("--inputs", type=Path, help=".npz by input name; left out: random")
    parser.add_argument("--dump", type=Path, help="write the outputs for --inputs to this .npz")
    return parser.parse_args(arguments)


def main() -> int:
    """Exit code of the process."""
    try:
        print(json.dumps(measure(parse(None))))
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        message = " ".join(str(error).split())
        print(f"error: {type(error).__name__}: {message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
