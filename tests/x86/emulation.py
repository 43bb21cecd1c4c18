"""An x86 processor with AVX2 and without VNNI, emulated by QEMU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from deploykit.emit.onnx_probe import probe_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.runtime.ort import Sums
from deploykit.spec.arrays import Tensors
from deploykit.spec.quantized import QuantizedNetwork
from tests.tools import require_tool

ROOT = Path(__file__).parent.parent.parent
QEMU = "qemu-x86_64-static"
CPU = "Haswell"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This Python on the emulated processor; skips where there is no emulator."""
    if platform.machine() != "x86_64":
        pytest.skip("the emulated Python is this machine's own, which is not for x86-64")
    command = [require_tool(QEMU), "-cpu", CPU, sys.executable, *arguments]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def run_networks(
    networks: Mapping[str, tuple[QuantizedNetwork, Tensors]],
    folder: Path,
    sums: Sums = Sums.KERNELS,
) -> dict[str, Tensors]:
    """Every activation of each network as ONNX Runtime computes it there, in one process."""
    for name, (network, inputs) in networks.items():
        (folder / f"{name}.onnx").write_bytes(probe_onnx(write_onnx(network)))
        np.savez(folder / f"{name}.inputs.npz", allow_pickle=False, **inputs)
    done = run_python("-m", "tests.x86.run_files", str(folder), sums.name)
    assert done.returncode == 0, done.stderr
    found: dict[str, Tensors] = {}
    for name in networks:
        with np.load(folder / f"{name}.tensors.npz") as tensors:
            found[name] = dict(tensors)
    return found
