"""Run folders of the samples' training: a checkpoint after every epoch, to go on from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

CHECKPOINT = "checkpoint.pt"


class Stateful(Protocol):
    """An optimizer, or several under one name."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides its next step."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Go on from there."""
        ...


class RunError(Exception):
    """A run cannot be started, resumed or reported."""


def load_run(run: Path) -> dict[str, Any]:
    """What training left in a run folder after its last whole epoch.

    Raises RunError where it left nothing.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        raise RunError(f"{path} does not exist: {run} is not a run that was begun.")
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def begin(
    run: Path, settings: Any, model: nn.Module, optimizer: Stateful, *, resume: bool
) -> tuple[list[dict[str, Any]], float]:
    """(epochs done, their seconds): none of a new run; a resumed one is put back where it was.

    settings: a dataclass of everything that decides what the run computes.

    Raises RunError where the folder holds a run of other settings, or one that is not to go on.
    """
    if resume:
        checkpoint = load_run(run)
        if checkpoint["settings"] != asdict(settings):
            raise RunError(
                f"{run} was trained with {checkpoint['settings']}: resume with the same settings."
            )
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["random"])
        return checkpoint["epochs"], checkpoint["seconds"]
    if (run / CHECKPOINT).exists():
        raise RunError(f"{run} already holds a run: add --resume, or name another --out.")
    run.mkdir(parents=True, exist_ok=True)
    return [], 0.0


def keep(
    run: Path,
    settings: Any,
    model: nn.Module,
    optimizer: Stateful,
    epochs: list[dict[str, Any]],
    seconds: float,
) -> None:
    """Leave what `begin` takes up again."""
    checkpoint = {
        "settings": asdict(settings),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "epochs": epochs,
        "seconds": seconds,
    }
    save_atomically(run / CHECKPOINT, checkpoint)


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


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with kernels and matrices in float16, which is how samples are committed.

    What has one axis stays as it is: norms, biases and gates are few, and exact.
    """
    return {
        name: values.half() if values.is_floating_point() and values.ndim > 1 else values
        for name, values in state.items()
    }
