"""Put arrays into a module's parameters and buffers; every key on both sides is accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Collection

import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.prefixes import matching_without
from deploykit.posterior.recognise import POSTERIOR_WORDS, split_key
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.listing import listed

IMPLIED = "num_batches_tracked"
"""Checkpoints from before torch 0.4.1 lack it, and it changes no result."""


def load_tensors(module: nn.Module, tensors: Tensors, origin: str) -> None:
    """Copy tensors into the module, in place. origin: what the sentences call their source."""
    own = module.state_dict()
    _require_no_negative_variance(tensors, origin)
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


def _require_no_negative_variance(tensors: Tensors, origin: str) -> None:
    negative = [key for key, array in tensors.items() if _is_running_variance(key, array)]
    if negative:
        raise CheckpointError(
            f"{origin}: {listed(negative)} of a batch norm has negative numbers, which no variance "
            "has; the file was damaged, or changed by arithmetic on it (averages, differences): "
            "take the file that training saved"
        )


def _is_running_variance(key: str, array: AnyArray) -> bool:
    return key.rpartition(".")[2] == "running_var" and bool((array < 0).any())


def absent_buffers(layer: nn.Module) -> frozenset[str]:
    """Names that the layer itself registers for buffers which it does not hold yet."""
    return frozenset(name for name, held in layer._buffers.items() if held is None)


def fill_absent(layer: nn.Module, tensors: Tensors) -> None:
    """Give such buffers the tensors of their names, in place.

    cplxmodule's masked layers have no mask before one is deployed.
    """
    for name in absent_buffers(layer) & tensors.keys():
        layer.register_buffer(name, torch.tensor(tensors[name]))


def _of_a_posterior(names: Collection[str]) -> bool:
    return any(POSTERIOR_WORDS.search(split_key(name)[1]) for name in names)


def _mismatch(origin: str, missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing and unexpected and not _of_a_posterior(unexpected) and _of_a_posterior(missing):
        return (
            f"{origin} holds no posterior: {listed(unexpected)} are plain tensors, and the network "
            f"has {listed(missing)}; give the file that the Bayesian training saved, or, for a "
            "network without a posterior, its deterministic form as --model"
        )
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
