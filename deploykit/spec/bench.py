"""What a measurement says: per model file its figures and raw samples, and the device they are of.

`BenchReport.to_json` is the results schema; docstrings here are its documentation. Times are in
the unit of the name's suffix, memory and sizes in bytes, null is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RESULTS_SCHEMA = "deploykit.bench/1"


@dataclass(frozen=True)
class Core:
    """One processor core. Frequencies in kHz, as cpufreq reads; None where it does not tell."""

    index: int
    max_frequency_khz: int | None
    current_frequency_khz: int | None
    governor: str | None


@dataclass(frozen=True)
class DeviceRecord:
    """What was measured on, read at the start of the measurement.

    pinned_core: the core that runners stay on, or None where processes cannot be pinned.
    pinning: why that core.
    adds_in_16_bits: whether ONNX Runtime's integer kernels do so here (spec.pairs), None where the
    processor's flags cannot be read.
    """

    device: str
    model: str | None
    processor: str | None
    operating_system: str
    kernel: str
    machine: str
    memory_bytes: int | None
    virtualized: bool | None
    cores: tuple[Core, ...]
    pinned_core: int | None
    pinning: str
    runtimes: Mapping[str, str]
    adds_in_16_bits: bool | None = None


@dataclass(frozen=True)
class ProcessRound:
    """One process of the runner on one model. order: its place in the whole measurement.

    affinity: the cores the process was really allowed, read back from the kernel ("3", "0-7").
    peak_memory_bytes: highest resident size less that of the runner before it imported a runtime.
    """

    order: int
    load_ns: int
    first_inference_ns: int
    warmup_ns: tuple[int, ...]
    settled: bool
    samples_ns: tuple[int, ...]
    peak_memory_bytes: int | None
    affinity: str | None


@dataclass(frozen=True)
class Latency:
    """Duration of one inference: inputs handed over, graph run, outputs read.

    median_ms: median over rounds of each round's median. interval_ms: 95 % bootstrap interval of
    that, over rounds; None below 6 rounds, which cannot carry one. p90_ms, p99_ms, mad_ms
    (unscaled median absolute deviation): over all samples together; p99 only from 1000 on.
    """

    median_ms: float
    interval_ms: tuple[float, float] | None
    p90_ms: float
    p99_ms: float | None
    mad_ms: float
    samples: int


@dataclass(frozen=True)
class ModelBench:
    """One model file, measured.

    load_ms, first_inference_ms, peak_memory_bytes: medians over rounds.
    settled_rounds: in how many rounds the latency became steady before timing began.
    facts: what the runtime tells of how it runs the graph (providers; nodes by operator).
    macs: multiply-accumulates of one inference. bytes_moved: weights and activations read and
    written by it. Both from the bundle's manifest.
    """

    file: str
    runtime: str
    runtime_version: str
    size_bytes: int
    sha256: str
    runner_sha256: str
    latency: Latency
    first_inference_ms: float
    load_ms: float
    peak_memory_bytes: int | None
    settled_rounds: int
    macs: int | None
    bytes_moved: int | None
    facts: Mapping[str, Any]
    rounds: tuple[ProcessRound, ...]


@dataclass(frozen=True)
class Unmeasured:
    """A model that people would look for, and why it has no figures."""

    model: str
    runtime: str
    reason: str


@dataclass(frozen=True)
class BenchReport:
    """A whole measurement. seed: of the order of the rounds and of the bootstrap.

    overflowing: layers for whose weights model.onnx gives other integers on this device.
    """

    bundle: str
    device: DeviceRecord
    threads: int
    seed: int
    models: tuple[ModelBench, ...]
    unmeasured: tuple[Unmeasured, ...]
    overflowing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; field names are the keys, raw samples included."""
        return {"schema": RESULTS_SCHEMA, **asdict(self)}
