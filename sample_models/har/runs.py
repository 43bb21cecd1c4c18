"""Where the folds' runs lie, and the networks in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model import HarNet, dense_har, gated_har

ARCHITECTURES = {"dense": dense_har, "gated": gated_har}


def run_folder(runs: Path, left_out: int, kind: str, penalty: float) -> Path:
    """Where `all` keeps a run."""
    name = kind if kind == "dense" else f"{kind}-{penalty:g}"
    return runs / f"subject-{left_out:02}" / name


def network_of(checkpoint: dict[str, Any]) -> HarNet:
    """The trained network."""
    network = ARCHITECTURES[checkpoint["settings"]["kind"]]()
    network.load_state_dict(checkpoint["model"])
    return network
