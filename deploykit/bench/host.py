"""This machine as a device: fresh processes of this Python, in a private temporary folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploykit.bench.device import Completed
from deploykit.bench.linux import (
    fastest_core,
    read_cores,
    read_memory_bytes,
    read_model,
    read_operating_system,
    read_processor,
    read_virtualized,
)
from deploykit.errors import ConfigError, DeviceError
from deploykit.graph.widths.host import processor_flags
from deploykit.spec.bench import DeviceRecord
from deploykit.spec.pairs import adds_in_16_bits

ROOT = Path("/")
RUNTIME_DISTRIBUTIONS = {
    "onnxruntime": "onnxruntime",
    "ai_edge_litert": "ai-edge-litert",
    "tflite_runtime": "tflite-runtime",
}


class Host:
    """This machine. folder: where pushed files lie."""

    name = "host"
    python = sys.executable

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self) -> DeviceRecord:
        allowed = _allowed_cores()
        cores = read_cores(ROOT)
        pinned, reason = fastest_core(cores, allowed)
        return DeviceRecord(
            device=self.name,
            model=read_model(ROOT),
            processor=read_processor(ROOT) or platform.processor() or None,
            operating_system=read_operating_system(ROOT) or platform.platform(),
            kernel=platform.release(),
            machine=platform.machine(),
            memory_bytes=read_memory_bytes(ROOT),
            virtualized=read_virtualized(ROOT),
            cores=cores,
            pinned_core=pinned,
            pinning=reason,
            runtimes=_runtimes(),
            adds_in_16_bits=_adds_in_16_bits(),
        )

    def push(self, local: Path) -> str:
        remote = self.folder / local.name
        try:
            shutil.copyfile(local, remote)
        except OSError as error:
            raise DeviceError(
                f"host: {local} cannot be copied to {self.folder}: {error.strerror}; "
                "free some space there, or set TMPDIR to another folder"
            ) from error
        return str(remote)

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=environment,
                cwd=self.folder,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"host: {Path(command[-1]).name} did not end within {timeout_s:.0f} s and was "
                "stopped; measure with fewer runs"
            ) from error
        except OSError as error:
            raise DeviceError(f"host: {command[0]} cannot be started: {error.strerror}") from error
        return Completed(done.returncode, done.stdout, done.stderr)

    def pull(self, remote: str, local: Path) -> None:
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise DeviceError(
                f"host: {remote} cannot be copied to {local}: {error.strerror}"
            ) from error


@contextmanager
def open_host() -> Iterator[Host]:
    """This machine, with a private folder that goes when the measurement ends."""
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as folder:
        yield Host(Path(folder))


def _allowed_cores() -> frozenset[int] | None:
    """Cores this process may use; None where the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return frozenset(os.sched_getaffinity(0))


def _adds_in_16_bits() -> bool | None:
    try:
        return adds_in_16_bits(processor_flags())
    except ConfigError:
        return None


def _runtimes() -> Mapping[str, str]:
    found = {}
    for module, distribution in RUNTIME_DISTRIBUTIONS.items():
        try:
            found[module] = version(distribution)
        except PackageNotFoundError:
            continue
    return found
