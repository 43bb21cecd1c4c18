"""Where the folds' runs lie, the networks in them, and how good one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import Windows
from model import HarNet, dense_har, gated_har
from torch import Tensor

ARCHITECTURES = {"dense": dense_har, "gated": gated_har}


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


def network_of(checkpoint: dict[str, Any]) -> HarNet:
    """The trained network."""
    network = ARCHITECTURES[checkpoint["settings"]["kind"]]()
    network.load_state_dict(checkpoint["model"])
    return network
