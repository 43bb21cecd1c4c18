"""Run a network on numpy inputs, in batches, with failures told as sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.spec.arrays import Float32Array, FloatArray

BATCH = 256


def prepared(module: nn.Module) -> nn.Module:
    """The same module in float32 and eval mode, with gradients off."""
    return module.float().eval().requires_grad_(False)


def batches(inputs: FloatArray, batch: int = BATCH) -> Iterator[torch.Tensor]:
    """Inputs [N, ...] in float32 pieces of nearly equal size, none above `batch`."""
    pieces = max(1, -(-len(inputs) // batch))
    for piece in np.array_split(inputs, pieces):
        yield torch.tensor(piece, dtype=torch.float32)


def run_batch(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """One forward pass without gradients; the network must return one tensor."""
    try:
        with torch.no_grad():
            output = module(inputs)
    except Exception as error:
        raise ArchitectureError(
            f"the network does not run on an input of shape {tuple(inputs.shape)}: "
            f"{type(error).__name__}: {error}; check --input-shape and the factory"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ArchitectureError(
            f"the network returns a {type(output).__name__}; deploykit exports networks with one "
            "output tensor, so let the factory build one that returns only that"
        )
    return output


def run(module: nn.Module, inputs: FloatArray, batch: int = BATCH) -> Float32Array:
    """Outputs for inputs [N, ...], computed `batch` at a time."""
    outputs = [run_batch(module, piece).numpy() for piece in batches(inputs, batch)]
    return np.concatenate(outputs).astype(np.float32)
