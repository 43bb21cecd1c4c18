"""Make Checkpoint values for tests without going through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.posterior import Checkpoint


def checkpoint_of(module: nn.Module) -> Checkpoint:
    """The module's state dict, as load_checkpoint would give it."""
    tensors = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    return Checkpoint(Path("net.pt"), tensors)


def with_tensor(checkpoint: Checkpoint, name: str, value: AnyArray) -> Checkpoint:
    """The checkpoint with one tensor replaced or added."""
    return Checkpoint(checkpoint.path, dict(checkpoint.tensors) | {name: value})


def without(checkpoint: Checkpoint, *names: str) -> Checkpoint:
    """The checkpoint with some tensors left out."""
    kept = {key: value for key, value in checkpoint.tensors.items() if key not in names}
    return Checkpoint(checkpoint.path, kept)


def gnj_tensors(weight_shape: tuple[int, ...], gates: int, seed: int = 0) -> Tensors:
    """Random tensors of one group normal-Jeffreys layer, by relative name."""
    generator = np.random.default_rng(seed)
    shapes = {"z": (gates,), "weight": weight_shape, "bias": weight_shape[:1]}
    tensors: dict[str, AnyArray] = {}
    for part, shape in shapes.items():
        tensors[f"{part}_mu"] = generator.standard_normal(shape).astype(np.float32)
        tensors[f"{part}_logvar"] = (generator.standard_normal(shape) - 2).astype(np.float32)
    return tensors
