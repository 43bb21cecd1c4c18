"""Parts of names that wrappers of a submodule add in the middle (`encoder.module.conv.weight`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import nn

from deploykit.posterior.recognise import join_key
from deploykit.spec.posterior import Checkpoint

WRAPPERS = ("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Of DataParallel, torch.compile, activation checkpointing and FullyShardedDataParallel."""


@dataclass(frozen=True)
class _Shorter:
    """name: without parts that the network lacks. taken: these, from the start of the name on."""

    name: str
    taken: tuple[str, ...]


def without_wrappers(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with such parts left out of its names where the network has none there.

    What was left out is told in `unwrapped` ("encoder.module."). As it was where two tensors would
    get one name.
    """
    modules = {name for name, _ in network.named_modules(remove_duplicate=False)}
    words = {part for name in modules for part in name.split(".")}
    shorter = {key: _shorter(key, modules, words) for key in checkpoint.tensors}
    taken = tuple(dict.fromkeys(part for one in shorter.values() for part in one.taken))
    tensors = {shorter[key].name: array for key, array in checkpoint.tensors.items()}
    if not taken or len(tensors) < len(checkpoint.tensors):
        return checkpoint
    return replace(checkpoint, tensors=tensors, unwrapped=(*checkpoint.unwrapped, *taken))


def _shorter(key: str, modules: Collection[str], words: Collection[str]) -> _Shorter:
    *parts, own = key.split(".")
    kept, seen, taken = "", "", []
    for part in parts:
        longer = join_key(kept, part)
        seen = join_key(seen, part)
        # Of a name with something else in front, which the network lacks, too.
        inside = kept in modules or kept.rpartition(".")[2] in words
        if part in WRAPPERS and inside and longer not in modules:
            taken.append(f"{seen}.")
        else:
            kept = longer
    return _Shorter(join_key(kept, own), tuple(taken))
