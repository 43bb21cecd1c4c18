"""Put arrays into a module's parameters and buffers; every key on both sides is accounted for."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.prefixes import matching_without
from deploykit.spec.arrays import Tensors
from deploykit.spec.listing import listed

IMPLIED = "num_batches_tracked"
"""Checkpoints from before torch 0.4.1 lack it, and it changes no result."""


def load_tensors(module: nn.Module, tensors: Tensors, origin: str) -> None:
    """Copy tensors into the module, in place. origin: what the sentences call their source."""
    own = module.state_dict()
    missing = [key for key in own if key not in tensors and not key.endswith(IMPLIED)]
    unexpected = [key for key in tensors if key not in own]
    if missing or unexpected:
        raise ArchitectureError(_mismatch(origin, missing, unexpected))
    for key, array in tensors.items():
        if tuple(own[key].shape) != array.shape:
            raise ArchitectureError(
                f"layer '{key.rpartition('.')[0]}': {key} has shape {tuple(own[key].shape)} in the "
                f"network and {array.shape} in {origin}; build the network that was trained"
            )
    with torch.no_grad():
        for key, array in tensors.items():
            own[key].copy_(torch.tensor(array))


def absent_buffers(layer: nn.Module) -> frozenset[str]:
    """Names that the layer itself registers for buffers which it does not hold yet."""
    return frozenset(name for name, held in layer._buffers.items() if held is None)


def fill_absent(layer: nn.Module, tensors: Tensors) -> None:
    """Give such buffers the tensors of their names, in place.

    cplxmodule's masked layers have no mask before one is deployed.
    """
    for name in absent_buffers(layer) & tensors.keys():
        layer.register_buffer(name, torch.tensor(tensors[name]))


def _mismatch(origin: str, missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if unexpected:
        parts.append(f"{origin} holds {listed(unexpected)}, which the network has not")
    if missing:
        parts.append(f"the network has {listed(missing)}, which {origin} lacks")
    close = [
        f"{key} for {match[0]}"
        for key in unexpected[:1]
        if (match := difflib.get_close_matches(key, missing, n=1))
    ]
    hint = f" (perhaps {close[0]})" if close else ""
    if unexpected and missing:
        first, fitting = matching_without(unexpected[0], unexpected, missing)
        if fitting:
            hint = (
                f" (without {first!r} in front, {fitting} of {len(unexpected)} names are the "
                "network's: re-save the checkpoint so, without what is not the network's)"
            )
    return f"{'; '.join(parts)}{hint}; build the network that was trained"
