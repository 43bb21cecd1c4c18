"""Checkpoints that keep a running average of the parameters as a list beside the state dict.

{state_dict, avg_params, steps_ema, beta_ema}: avg_params in the order of model.parameters(), each
a sum of (1 - beta) beta^k p, which evaluation divides by 1 - beta^steps. Buffers (batch norm's
running statistics) are in state_dict only. Source: AMLab-Amsterdam/L0_regularization 39a5fe6, whose
evaluation, and so every number reported with it, uses the averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from deploykit.errors import CheckpointError

ENTRY = "avg_params"
RAW = "state_dict"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
RAW_INSTEAD = f"--weights {RAW} takes the weights without averaging"


def holds_average(content: Mapping[object, object]) -> bool:
    """Whether the file is of that kind."""
    return isinstance(content.get(ENTRY), list | tuple) and isinstance(content.get(RAW), Mapping)


def averaged_tensors(path: Path, content: Mapping[object, object]) -> dict[str, torch.Tensor]:
    """The state dict with every parameter replaced by avg_param / (1 - beta^steps)."""
    remaining = 1.0 - _number(path, content, "beta_ema") ** _number(path, content, "steps_ema")
    if not remaining > 0.0:
        raise CheckpointError(
            f"{path}: steps_ema = {content['steps_ema']} and beta_ema = {content['beta_ema']} "
            f"average nothing yet; {RAW_INSTEAD}"
        )
    state = content[RAW]
    assert isinstance(state, Mapping)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    names = [key for key in tensors if key.rpartition(".")[2] not in BUFFERS]
    averages = content[ENTRY]
    assert isinstance(averages, list | tuple)
    shapes = [tuple(value.shape) for value in averages if isinstance(value, torch.Tensor)]
    if [tuple(tensors[name].shape) for name in names] != shapes:
        raise CheckpointError(
            f"{path}: the {len(averages)} tensors of {ENTRY} are not the {len(names)} parameters "
            f"of {RAW} in order, so that no name can be given to them; {RAW_INSTEAD}"
        )
    for name, average in zip(names, averages, strict=True):
        scaled = average.double() / remaining
        tensors[name] = scaled.to(average.dtype)
    return tensors


def _number(path: Path, content: Mapping[object, object], key: str) -> float:
    value = content.get(key)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float):
        raise CheckpointError(
            f"{path}: holds {ENTRY} and no number {key} to scale them with; {RAW_INSTEAD}"
        )
    return float(value)
