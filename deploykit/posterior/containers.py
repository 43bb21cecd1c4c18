"""Find the state dict inside what training scripts save around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from deploykit.errors import CheckpointError

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "net_state_dict",
    "model_weights",
)
"""Entries under which training scripts keep the network."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

RESAVE = "save it as torch.save(model.state_dict(), 'weights.pt')"


def unwrap_containers(
    path: Path, content: object
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors by name, and the containers they were in, outermost first."""
    unwrapped: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        inside = [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        if len(inside) > 1:
            raise CheckpointError(
                f"{path}: holds several networks ({', '.join(inside)}); keep one and {RESAVE}"
            )
        if not inside:
            return _named_tensors(path, content), unwrapped
        content, unwrapped = content[inside[0]], (*unwrapped, inside[0])
    where = "".join(f"['{key}']" for key in unwrapped)
    raise CheckpointError(
        f"{path}: its content{where} is of type {type(content).__name__} where tensors by name are "
        f"expected; {RESAVE}"
    )


def strip_prefixes(
    path: Path, tensors: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Take off each prefix that every name has; the prefixes taken, outermost first."""
    stripped: tuple[str, ...] = ()
    while True:
        common = [prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in tensors)]
        if not common:
            return tensors, stripped
        tensors = {key.removeprefix(common[0]): value for key, value in tensors.items()}
        stripped = (*stripped, common[0])


def _named_tensors(path: Path, content: Mapping[object, object]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            tensors[key] = value
        else:
            others.append(f"{key} ({type(value).__name__})")
    if not tensors:
        nested = [str(key) for key, value in content.items() if _holds_tensors(value)]
        hint = f"; the entry {', '.join(nested)} does, so save that one" if nested else ""
        raise CheckpointError(f"{path}: holds no tensors by name{hint}; {RESAVE}")
    if others:
        raise CheckpointError(
            f"{path}: entries beside the tensors are not understood: {', '.join(others[:5])}; "
            f"{RESAVE}"
        )
    return tensors


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(inner, torch.Tensor) for inner in value.values()
    )
