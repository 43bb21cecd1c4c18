"""Names of a checkpoint that begin with a part that the network's names lack, or the reverse.

A training script's own module holds the network as one of its parts (`model.` in Lightning), and
sometimes an average of it, a teacher or a loss beside it. A factory may wrap the network in turn,
to return one of its outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import replace

from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.containers import AVERAGES
from deploykit.posterior.recognise import layer_keys, recognise, split_key
from deploykit.spec.posterior import Checkpoint


def fit_prefix(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with the first parts of its names left out, or put in front, where all fit.

    A name fits where its layer is one of the network's; a Bayesian layer's tensors have other names
    than its twin's. Where the network is one part of what the file holds, all of its layers have to
    be in that part; what is left out is told in `beside`. Where the file is the one part of the
    network that has layers, the name of that part is put in front. Either is told in `unwrapped`.
    Anything else is returned as it is: loading it says what does not fit.

    Raises CheckpointError where several parts are the whole network.
    """
    needed = {split_key(name)[0] for name in network.state_dict()}
    modules = {name for name, _ in network.named_modules(remove_duplicate=False)}
    # Without the last part of a layer's name, it would be the network itself.
    places = modules if "" in needed else modules - {""}
    keys = layer_keys(recognise(checkpoint), checkpoint)
    layer_of = {key: layer for key, (layer, _) in keys.items()}
    if set(layer_of.values()) <= places:
        return checkpoint
    every, parts = [], []
    for prefix in _prefixes(layer_of.values()):
        below = {_below(layer, prefix) for layer in layer_of.values() if _is_in(layer, prefix)}
        if not below <= places:
            continue
        if all(_is_in(layer, prefix) for layer in layer_of.values()):
            every.append(prefix)
        elif all(_is_covered(layer, below) for layer in needed):
            parts.append(prefix)
    taken = every[0] if every else _of_several(checkpoint, parts)
    if taken is None:
        return _put_in_front(checkpoint, set(layer_of.values()), needed, places)
    tensors = {
        key.removeprefix(taken): array
        for key, array in checkpoint.tensors.items()
        if _is_in(layer_of[key], taken)
    }
    others = (key.partition(".")[0] for key in checkpoint.tensors if not key.startswith(taken))
    return replace(
        checkpoint,
        tensors=tensors,
        unwrapped=(*checkpoint.unwrapped, taken),
        beside=(*checkpoint.beside, *dict.fromkeys(others)),
    )


def _put_in_front(
    checkpoint: Checkpoint, stored: Set[str], needed: Set[str], places: Set[str]
) -> Checkpoint:
    """Under the names of the part of the network that all layers fit, and that lacks none.

    As it is where there is no such part.
    """
    for prefix in _prefixes(needed):
        moved = {_behind(prefix, layer) for layer in stored}
        if moved <= places and all(_is_covered(layer, moved) for layer in needed):
            break
    else:
        return checkpoint
    flat = checkpoint.flat
    if flat is not None and flat.layer is not None:
        flat = replace(flat, layer=_behind(prefix, flat.layer))
    return replace(
        checkpoint,
        tensors={f"{prefix}{key}": array for key, array in checkpoint.tensors.items()},
        unwrapped=(*checkpoint.unwrapped, f"'{prefix}' put in front of all names"),
        flat=flat,
    )


def _of_several(checkpoint: Checkpoint, parts: Collection[str]) -> str | None:
    """The one part that is the network; of it and its average, the one that is not averaged."""
    plain = [prefix for prefix in parts if prefix.partition(".")[0] not in AVERAGES]
    among = plain or list(parts)
    if len(among) > 1:
        raise CheckpointError(
            f"{checkpoint.path}: holds the network several times, under {', '.join(among)}; say "
            f"which one with --weights {among[0].removesuffix('.')}"
        )
    return among[0] if among else None


def _prefixes(layers: Collection[str]) -> Mapping[str, None]:
    """Every way in which the names begin, shortest first: "a.", "a.b.", ..."""
    found = {
        "".join(f"{part}." for part in layer.split(".")[:count])
        for layer in layers
        if layer
        for count in range(1, layer.count(".") + 2)
    }
    return dict.fromkeys(sorted(found, key=lambda prefix: (prefix.count("."), prefix)))


def _is_in(layer: str, prefix: str) -> bool:
    return f"{layer}.".startswith(prefix)


def _below(layer: str, prefix: str) -> str:
    """_below("net.fc", "net.") -> "fc"; the network itself is ""."""
    return f"{layer}.".removeprefix(prefix).removesuffix(".")


def _behind(prefix: str, layer: str) -> str:
    """_behind("net.", "fc") -> "net.fc"; _behind("net.", "") -> "net"."""
    return f"{prefix}{layer}".removesuffix(".")


def _is_covered(layer: str, stored: Collection[str]) -> bool:
    """Whether the layer, or one that it is a part of, is in the file."""
    return any(layer == name or layer.startswith(f"{name}.") or not name for name in stored)


def matching_without(name: str, names: Collection[str], own: Collection[str]) -> tuple[str, int]:
    """A name's first part, and how many names are the network's own without it.

    matching_without("net.a", ["net.a", "head.b"], ["a", "b"]) -> ("net.", 1)
    """
    first = f"{name.partition('.')[0]}."
    stripped = (other.removeprefix(first) for other in names if other.startswith(first))
    return first, sum(other in own for other in stripped)
