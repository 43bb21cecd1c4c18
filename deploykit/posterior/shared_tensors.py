"""Tensors that a network holds under several names, and a file under some of them.

safetensors' save_model keeps one name of each; a layer that is registered twice has two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.recognise import join_key, split_key
from deploykit.spec.arrays import AnyArray
from deploykit.spec.posterior import Checkpoint


def with_shared(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with every tensor under all names that the network gives it.

    A deterministic network shares layers, whose tensors have other names in the file; what it
    shares by the tensor is found where the names are the network's own.

    Raises CheckpointError where the file has two values of one tensor.
    """
    tensors = dict(checkpoint.tensors)
    for names in _names(network.named_modules(remove_duplicate=False)):
        starts = [join_key(name, "") for name in names]
        relative = dict.fromkeys(
            key.removeprefix(start) for start in starts for key in tensors if key.startswith(start)
        )
        for own in relative:
            _share(checkpoint, tensors, [f"{start}{own}" for start in starts])
    held = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    for names in _names(held):
        _share(checkpoint, tensors, names)
    return replace(checkpoint, tensors=tensors)


def _names(named: Iterable[tuple[str, object]]) -> Iterator[list[str]]:
    """Of each object that has several."""
    found: dict[int, list[str]] = {}
    for name, held in named:
        found.setdefault(id(held), []).append(name)
    yield from (names for names in found.values() if len(names) > 1 and "" not in names)


def _share(checkpoint: Checkpoint, tensors: dict[str, AnyArray], names: Iterable[str]) -> None:
    wanted = list(names)
    stored = [name for name in wanted if name in tensors]
    if not stored:
        return
    first = tensors[stored[0]]
    for other in stored[1:]:
        # A part of a layer may share its start with the layer and be trained apart (blitz).
        if _is_within(stored[0], other) or _is_within(other, stored[0]):
            continue
        if not np.array_equal(first, tensors[other], equal_nan=first.dtype.kind == "f"):
            raise CheckpointError(
                f"{checkpoint.path}: '{stored[0]}' and '{other}' differ, and the network holds one "
                "tensor under both names; build the network that was trained, which has two"
            )
    tensors.update(dict.fromkeys((name for name in wanted if name not in tensors), first))


def _is_within(name: str, other: str) -> bool:
    owner, of_other = split_key(name)[0], split_key(other)[0]
    return of_other.startswith(join_key(owner, ""))
