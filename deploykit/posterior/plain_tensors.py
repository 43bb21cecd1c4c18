"""Tensors that are called like a part of a posterior, and that the network holds as they are.

A learned noise of the likelihood (`log_sigma`), the constants of a normalisation (`mu`, `sigma`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from deploykit.posterior.recognise import POSTERIOR_WORDS, join_key
from deploykit.spec.posterior import Checkpoint


def with_plain(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with `plain`, its names of such tensors, whatever stands in front of them."""
    shapes = plain_tensors(network)
    plain = frozenset(
        key
        for key, array in checkpoint.tensors.items()
        for name, shape in shapes.items()
        if array.shape == shape and (key == name or key.endswith(f".{name}"))
    )
    return replace(checkpoint, plain=plain)


def plain_tensors(network: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Shapes by name.

    No module is meant that holds a matrix, nor several parameters of such names or one beside
    another of its shape, unless they are single numbers: a network of Bayesian layers holds a mean
    and a spread by just these names, which a family has to explain.
    """
    return {
        join_key(owner, key): tuple(tensor.shape)
        for owner, module in network.named_modules(remove_duplicate=False)
        for key, tensor in _plain_of(module).items()
    }


def _plain_of(module: nn.Module) -> dict[str, torch.Tensor]:
    parameters = dict(module.named_parameters(recurse=False))
    buffers = dict(module.named_buffers(recurse=False))
    if any(_is_matrix(tensor) for tensor in (*parameters.values(), *buffers.values())):
        return {}
    shapes = [parameter.shape for parameter in parameters.values()]
    spoken = {key: held for key, held in parameters.items() if POSTERIOR_WORDS.search(key)}
    if any(parameter.numel() > 1 for parameter in spoken.values()) and (
        len(spoken) > 1 or any(shapes.count(one.shape) > 1 for one in spoken.values())
    ):
        return {}
    constants = {key: held for key, held in buffers.items() if POSTERIOR_WORDS.search(key)}
    return {**spoken, **constants}


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.numel() > 1 and (tensor.ndim == 2 or sum(size > 1 for size in tensor.shape) > 1)
