"""Checkpoints in several files, with an index that says which tensor lies in which."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from deploykit.errors import CheckpointError

ENDING = ".index.json"
"""Of the index: model.safetensors.index.json, pytorch_model.bin.index.json."""


def is_index(path: Path) -> bool:
    """Whether the file lists shards beside it."""
    return path.name.endswith(ENDING)


def load_shards(
    path: Path, load: Callable[[Path], Mapping[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The tensors of every shard that the index at `path` lists. load: reads one of them.

    Raises CheckpointError where the index is none, leads out of its folder, or a shard lacks one
    of its tensors.
    """
    placed = _placed(path)
    shards: dict[str, Mapping[str, torch.Tensor]] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, file in placed.items():
        if Path(file).name != file:
            raise CheckpointError(f"{path}: names the shard {file}, which is not in its own folder")
        if file not in shards:
            shards[file] = load(path.parent / file)
        if name not in shards[file]:
            raise CheckpointError(f"{path}: places '{name}' in {file}, which does not hold it")
        tensors[name] = shards[file][name]
    return tensors


def require_no_shard(path: Path) -> None:
    """Raises CheckpointError where an index beside the file lists it as one of several shards."""
    for index in sorted(path.parent.glob(f"*{ENDING}")):
        try:
            shards = set(_placed(index).values())
        except (CheckpointError, OSError):
            continue  # an index that cannot be read says nothing about this file
        if path.name in shards and len(shards) > 1:
            raise CheckpointError(
                f"{path}: is one of the {len(shards)} shards of a checkpoint; give {index}, which "
                "lists them all"
            )


def _placed(index: Path) -> dict[str, str]:
    """The shard of every tensor."""
    try:
        held = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in held.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: is no index of shards: it has no weight_map of tensor and file names"
        ) from error
