"""Find the state dict inside what training scripts save around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from deploykit.errors import CheckpointError
from deploykit.posterior.running_average import ENTRY, RAW, averaged_tensors, holds_average
from deploykit.spec.listing import listed

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

AVERAGES = (
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "averaged_model",
    "swa_model",
    "swa_state_dict",
)
"""Entries under which they keep an average of its weights beside it."""

COUNTER = "n_averaged"
"""What torch's AveragedModel adds to the tensors of the network, which it calls module."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

LIGHTNING_RAW = "current_model_state"
"""Where Lightning's WeightAveraging keeps the weights whose average is its state_dict."""

RESAVE = "save it as torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class Unwrapped:
    """tensors: by name. containers: that they were in, outermost first. beside: other networks."""

    tensors: dict[str, torch.Tensor]
    containers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def unwrap_containers(path: Path, content: object, wanted: str | None = None) -> Unwrapped:
    """The tensors by name. wanted: the entry to take, where there are several networks, or the
    part that the names of the one network begin with.

    Without it the one entry of CONTAINERS is taken, an average of weights only where it is alone,
    or where the author's evaluation uses it (`running_average`).
    """
    containers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    if isinstance(content, Mapping) and wanted in (None, ENTRY) and holds_average(content):
        return Unwrapped(averaged_tensors(path, content), (ENTRY,), (RAW,))
    if wanted is not None:
        entries = content if isinstance(content, Mapping) else {}
        if not isinstance(entries.get(wanted), Mapping):
            return _part(path, unwrap_containers(path, content), wanted, entries)
        content, containers = entries[wanted], (wanted,)
    while isinstance(content, Mapping):
        inside = [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        averages = [key for key in AVERAGES if isinstance(content.get(key), Mapping)]
        if len(inside) > 1 or (not inside and len(averages) > 1):
            listed = ", ".join((*inside, *averages))
            raise CheckpointError(
                f"{path}: holds several networks ({listed}); say which one with --weights NAME"
            )
        taken = (*inside, *averages)[:1]
        if not taken:
            return Unwrapped(_named_tensors(path, content), containers, beside)
        raw = (LIGHTNING_RAW,) if isinstance(content.get(LIGHTNING_RAW), Mapping) else ()
        beside = (*beside, *(key for key in (*averages, *raw) if key not in taken))
        content, containers = content[taken[0]], (*containers, taken[0])
    where = "".join(f"['{key}']" for key in containers)
    raise CheckpointError(
        f"{path}: its content{where} is of type {type(content).__name__} where tensors by name are "
        f"expected; {RESAVE}"
    )


def _part(path: Path, found: Unwrapped, name: str, entries: Mapping[object, object]) -> Unwrapped:
    """The tensors whose names begin with that part, of a file without such an entry."""
    start = f"{name.removesuffix('.')}."
    taken = {k.removeprefix(start): v for k, v in found.tensors.items() if k.startswith(start)}
    if taken:
        return Unwrapped(taken, (*found.containers, start))
    networks = [str(key) for key, value in entries.items() if isinstance(value, Mapping)]
    parts = [key.partition(".")[0] for key in found.tensors if "." in key]
    held = f"it holds {', '.join(networks)}" if networks else "it holds one network, unnamed"
    begin = f", whose names begin with {listed(dict.fromkeys(parts))}" if parts else ""
    raise CheckpointError(f"{path}: --weights {name}: there is no such entry; {held}{begin}")


def strip_prefixes(
    path: Path, tensors: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Take off each prefix that every name has; the prefixes taken, outermost first."""
    stripped: tuple[str, ...] = ()
    averaged = {key: value for key, value in tensors.items() if key != COUNTER}
    if averaged.keys() != tensors.keys() and all(key.startswith("module.") for key in averaged):
        tensors, stripped = averaged, (COUNTER,)
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
        hint = ""
        if nested:
            told = "the entry {} does" if len(nested) == 1 else "entries {} do"
            hint = f"; {told.format(', '.join(nested))}: take one with --weights {nested[0]}"
        raise CheckpointError(f"{path}: holds no tensors by name{hint}; {RESAVE}")
    if others:
        raise CheckpointError(
            f"{path}: entries beside the tensors are not understood: {', '.join(others[:5])}; "
            f"{RESAVE}"
        )
    return tensors


def _holds_tensors(value: object) -> bool:
    """Whether tensors lie in it, at any depth of dictionaries."""
    return isinstance(value, Mapping) and any(
        isinstance(inner, torch.Tensor) or _holds_tensors(inner) for inner in value.values()
    )
