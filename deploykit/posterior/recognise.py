"""Group the keys of a checkpoint by layer and say which family explains each one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploykit.errors import CheckpointError
from deploykit.posterior.diagonal import FORMATS
from deploykit.posterior.families import DETERMINISTIC, FAMILIES
from deploykit.posterior.family import Family
from deploykit.spec.arrays import Tensors
from deploykit.spec.posterior import Checkpoint, LayerPosterior

POSTERIOR_WORDS = re.compile(
    r"(^|_)(mus?|rho|sigmas?\d*|log_?var|log_?sigma\d*|log_?alpha|log_?std|loga|logd|sq_mean"
    r"|posterior|prior|unconstrained)($|_)"
    r"|^(weight|bias|kernel|w|b)_(mean|var|variance|std|loc)$",
    re.IGNORECASE,
)
"""Parameter names that speak of a distribution; a plain layer never has one."""


@dataclass(frozen=True)
class RecognisedLayer:
    """A layer that one family explains wholly. tensors: by name relative to the layer."""

    name: str
    family: Family
    tensors: Tensors

    def posterior(self) -> LayerPosterior:
        """Mean, variance and gates of the layer's torch twin."""
        return self.family.posterior(self.name, self.tensors)


@dataclass(frozen=True)
class Recognised:
    """layers: those with a posterior. plain: every other tensor, by its full key."""

    layers: tuple[RecognisedLayer, ...]
    plain: Tensors

    def families(self) -> Mapping[str, str]:
        """Family name by layer, plain layers included."""
        named = {split_key(key)[0]: DETERMINISTIC for key in self.plain}
        return named | {layer.name: layer.family.name for layer in self.layers}


def recognise(checkpoint: Checkpoint, families: Sequence[Family] = FAMILIES) -> Recognised:
    """Explain every key by exactly one family or as part of a plain layer; refuse what is left."""
    if checkpoint.format is not None:
        families = (FORMATS[checkpoint.format], *families)
    layers = _outermost(
        _explained(checkpoint, name, candidates)
        for name, candidates in _candidates(checkpoint.tensors, families).items()
    )
    claimed = {join_key(layer.name, key) for layer in layers for key in layer.tensors}
    plain = {key: value for key, value in checkpoint.tensors.items() if key not in claimed}
    for key in plain:
        layer, parameter = split_key(key)
        if POSTERIOR_WORDS.search(parameter):
            raise _not_understood(checkpoint, layer, families)
    return Recognised(layers, plain)


def split_key(key: str) -> tuple[str, str]:
    """split_key("features.0.weight") -> ("features.0", "weight")."""
    layer, _, parameter = key.rpartition(".")
    return layer, parameter


def join_key(layer: str, parameter: str) -> str:
    """join_key("", "weight") -> "weight"."""
    return f"{layer}.{parameter}" if layer else parameter


def layer_keys(recognised: Recognised, checkpoint: Checkpoint) -> dict[str, tuple[str, str]]:
    """Layer and relative name of every tensor; those of a layer's parts are the layer's."""
    of_layers = {
        join_key(layer.name, key): (layer.name, key)
        for layer in recognised.layers
        for key in layer.tensors
    }
    return {full: of_layers.get(full) or split_key(full) for full in checkpoint.tensors}


def _candidates(tensors: Tensors, families: Iterable[Family]) -> dict[str, list[Family]]:
    """Families whose whole signature stands under a layer, by layer in checkpoint order."""
    found: dict[str, list[Family]] = {}
    for key in tensors:
        for family in families:
            anchor = min(family.signature)
            if key != anchor and not key.endswith(f".{anchor}"):
                continue
            layer = key.removesuffix(anchor).removesuffix(".")
            if all(join_key(layer, part) in tensors for part in family.signature):
                found.setdefault(layer, []).append(family)
    return found


def _outermost(layers: Iterable[RecognisedLayer]) -> tuple[RecognisedLayer, ...]:
    """Without layers that are parts of another one (the two matrices of a recurrent layer)."""
    found = [(layer, {join_key(layer.name, key) for key in layer.tensors}) for layer in layers]
    return tuple(layer for layer, own in found if not any(own < other for _, other in found))


def _explained(checkpoint: Checkpoint, layer: str, candidates: Sequence[Family]) -> RecognisedLayer:
    own = _own(checkpoint.tensors, layer, candidates)
    whole = [
        family
        for family in candidates
        if own - family.plain <= family.keys
        and not _half_present(checkpoint.tensors, layer, family)
        and family.fits(_part(checkpoint.tensors, layer, family))
    ]
    most_specific = [
        family for family in whole if not any(family.signature < other.signature for other in whole)
    ]
    match most_specific:
        case []:
            raise _not_understood(checkpoint, layer, candidates)
        case [family]:
            return RecognisedLayer(layer, family, _part(checkpoint.tensors, layer, family))
        case _:
            names = " and ".join(family.name for family in most_specific)
            raise CheckpointError(
                f"{checkpoint.path}: layer '{layer}' fits {names} equally well; "
                "rename its keys as the library that trained it writes them"
            )


def _own(tensors: Tensors, layer: str, families: Sequence[Family]) -> set[str]:
    """Names relative to the layer, with those of its parts that the families know."""
    parts = {key.partition(".")[0] for family in families for key in family.keys if "." in key}
    start = join_key(layer, "")
    relative = (key.removeprefix(start) for key in tensors if key.startswith(start))
    return {key for key in relative if "." not in key or key.partition(".")[0] in parts}


def _part(tensors: Tensors, layer: str, family: Family) -> Tensors:
    return {
        part: tensors[join_key(layer, part)]
        for part in sorted(family.keys)
        if join_key(layer, part) in tensors
    }


def _half_present(tensors: Tensors, layer: str, family: Family) -> bool:
    present = _part(tensors, layer, family).keys()
    return any(0 < len(group & present) < len(group) for group in family.optional)


def _not_understood(
    checkpoint: Checkpoint, layer: str, families: Sequence[Family]
) -> CheckpointError:
    own = _own(checkpoint.tensors, layer, families)

    def likeness(family: Family) -> float:
        return len(own & family.keys) / len(own | family.keys)

    nearest = max(families, key=likeness)
    keys = ", ".join(join_key(layer, parameter) for parameter in sorted(own))
    missing = sorted(nearest.signature - own)
    half = sorted(part for group in nearest.optional if group & own for part in group - own)
    foreign = sorted(own - nearest.keys - nearest.plain)
    wants = f"it also has {', '.join(missing + half)}" if missing or half else ""
    lacks = f"it has no {', '.join(foreign)}" if foreign else ""
    differences = " and ".join(text for text in (wants, lacks) if text)
    return CheckpointError(
        f"{checkpoint.path}: layer '{layer}' is not understood: it holds {keys}; the nearest known "
        f"family is {nearest.name}, but {differences}. "
        "Save the layer's complete state_dict under its library's own names."
    )
