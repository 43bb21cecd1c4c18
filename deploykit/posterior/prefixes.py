"""Names of a checkpoint that all begin with a part that the network's names lack."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from torch import nn

from deploykit.posterior.recognise import split_key
from deploykit.spec.posterior import Checkpoint


def without_prefix(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with the first parts of its names left out, where all then fit the network.

    A name fits where its layer is one of the network's; a Bayesian layer's tensors have other names
    than its twin's. Anything else is returned as it is: loading it says what does not fit.
    """
    layers = {name for name, _ in network.named_modules()}
    names, taken = list(checkpoint.tensors), ""
    while not _fit(names, layers):
        first = {name.partition(".")[0] for name in names}
        if len(first) != 1 or any("." not in name for name in names):
            return checkpoint
        taken += f"{first.pop()}."
        names = [name.partition(".")[2] for name in names]
    if not taken:
        return checkpoint
    tensors = {name.removeprefix(taken): array for name, array in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=tensors, unwrapped=(*checkpoint.unwrapped, taken))


def _fit(names: Iterable[str], layers: Collection[str]) -> bool:
    return all(split_key(name)[0] in layers for name in names)


def matching_without(name: str, names: Collection[str], own: Collection[str]) -> tuple[str, int]:
    """A name's first part, and how many names are the network's own without it.

    matching_without("net.a", ["net.a", "head.b"], ["a", "b"]) -> ("net.", 1)
    """
    first = f"{name.partition('.')[0]}."
    stripped = (other.removeprefix(first) for other in names if other.startswith(first))
    return first, sum(other in own for other in stripped)
