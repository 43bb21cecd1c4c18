"""Run folders: what training leaves in them after every epoch, and how good a network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import Windows
from model import HarNet, dense_har, gated_har
from torch import Tensor

ARCHITECTURES = {"dense": dense_har, "gated": gated_har}


class RunError(Exception):
    """A run cannot be started, resumed or reported."""


@dataclass(frozen=True)
class Tensors:
    """Windows [N, 6, 128] and labels [N]."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, windows: Windows) -> Tensors:
        """Share the memory of numpy windows."""
        return cls(torch.from_numpy(windows.inputs), torch.from_numpy(windows.labels))


def accuracy(network: HarNet, windows: Tensors) -> float:
    """Fraction classified correctly in eval mode."""
    network.eval()
    with torch.no_grad():
        found = network(windows.inputs).argmax(dim=1)
    return float((found == windows.labels).double().mean())


def run_folder(runs: Path, left_out: int, kind: str, penalty: float) -> Path:
    """Where `all` keeps a run."""
    name = kind if kind == "dense" else f"{kind}-{penalty:g}"
    return runs / f"subject-{left_out:02}" / name


def load_run(run: Path) -> dict[str, Any]:
    """What `fit` left in a run folder after its last whole epoch."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise RunError(f"{path} does not exist: train it with `train.py fit` or `train.py all`.")
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def network_of(checkpoint: dict[str, Any]) -> HarNet:
    """The trained network."""
    network = ARCHITECTURES[checkpoint["settings"]["kind"]]()
    network.load_state_dict(checkpoint["model"])
    return network


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a reader sees the old one or the new one whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def save_atomically(path: Path, value: object) -> None:
    """torch.save under the same promise."""
    partial = path.with_name(f"{path.name}.partial")
    torch.save(value, partial)
    partial.replace(path)
