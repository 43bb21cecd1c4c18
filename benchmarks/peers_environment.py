"""The environment of the TFLite peers: litert-torch brings 70 packages that deploykit must not see.

torch is installed first, at the version whose plain wheel is the CPU build here; asked for by
litert-torch alone, pip may choose a newer one with gigabytes of CUDA.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "peers" / "venv"
TORCH = ("torch==2.13.0",)
PEERS = ("litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0")


def peer_python(given: Path | None) -> Path:
    """The interpreter that was named, else that of build/peers/venv, made once (2 GB)."""
    if given is not None:
        return given
    python = FOLDER / "bin" / "python"
    installed = FOLDER / ".installed"
    if not installed.exists():
        print(f"installing {', '.join(PEERS)} into {FOLDER}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *TORCH], check=True)
        subprocess.run([*pip, *TORCH, *PEERS], check=True)
        installed.touch()
    return python
