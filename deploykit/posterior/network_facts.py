"""What a network says about the tensors of a checkpoint that their names alone do not."""

from __future__ import annotations

from torch import nn

from deploykit.posterior.plain_tensors import with_plain
from deploykit.posterior.shared_tensors import with_shared
from deploykit.posterior.wrappers import without_wrappers
from deploykit.spec.posterior import Checkpoint


def as_told_by(network: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """Names without wrappers' parts, shared tensors under all their names, plain ones known.

    Raises CheckpointError where a tensor that the network shares has two values.
    """
    return with_plain(with_shared(without_wrappers(checkpoint, network), network), network)
