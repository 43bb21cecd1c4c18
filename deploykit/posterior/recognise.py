"""Group the keys of a checkpoint by layer and say which family explains each one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.bayesian_bits import refusal
from deploykit.posterior.diagonal import FORMATS
from deploykit.posterior.families import DETERMINISTIC, FAMILIES
from deploykit.posterior.family import Family
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.listing import listed
from deploykit.spec.posterior import Checkpoint, LayerPosterior

POSTERIOR_WORDS = re.compile(
    r"(^|_)(mus?|rho|sigmas?\d*|log_?var|log_?sigma\d*|log_?alpha|log_?std|loga|logd|sq_mean"
    r"|posterior|prior|unconstrained)($|_)"
    r"|^(weight|bias|kernel|w|b)_(mean|var|variance|std|loc)$",
    re.IGNORECASE,
)
"""Parameter names that speak of a distribution; a plain layer never has one."""
PLAIN_NAMES = frozenset({"weight", "bias"})
"""Names that likeness to a family does not go by."""
HALVES = {
    "_sq_mean": "SWAG keeps an X_mean beside each X_sq_mean",
    "_unconstrained": "Pyro and TyXe keep a loc beside each scale",
}
"""What is missing where a posterior of a whole file is there by half, by the ends of its names."""
MOST_KEYS = 8
"""Of a layer, that an error lists."""


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
    _require_real(checkpoint)
    if checkpoint.format is not None:
        families = (FORMATS[checkpoint.format], *families)
    layers = _outermost(
        _explained(checkpoint, name, candidates)
        for name, candidates in _candidates(checkpoint.tensors, families).items()
    )
    claimed = {join_key(layer.name, key) for layer in layers for key in layer.tensors}
    plain = {key: value for key, value in checkpoint.tensors.items() if key not in claimed}
    reason = refusal(plain)
    if reason is not None:
        raise CheckpointError(f"{checkpoint.path}: {reason}")
    for key in plain:
        layer, parameter = split_key(key)
        if POSTERIOR_WORDS.search(parameter) and not _is_plain(checkpoint, key):
            raise _not_understood(checkpoint, layer, families)
    return Recognised(layers, plain)


def lone_numbers(recognised: Recognised) -> tuple[str, ...]:
    """Tensors of no layer that are called like a part of a posterior."""
    return tuple(key for key in recognised.plain if POSTERIOR_WORDS.search(split_key(key)[1]))


def _require_real(checkpoint: Checkpoint) -> None:
    """Weights and their spreads are real numbers; counters, masks and indices need not be."""
    for key, array in checkpoint.tensors.items():
        parameter = split_key(key)[1]
        of_weights = parameter in PLAIN_NAMES or POSTERIOR_WORDS.search(parameter)
        if of_weights and array.ndim and not np.issubdtype(array.dtype, np.floating):
            raise CheckpointError(
                f"{checkpoint.path}: '{key}' holds {array.dtype} where weights are real numbers: "
                "a conversion has cut them off; re-save the network before it, in float32"
            )


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


def _is_plain(checkpoint: Checkpoint, key: str) -> bool:
    """As the network says; without one, whether the key is a number among numbers."""
    if checkpoint.plain is not None:
        return key in checkpoint.plain
    return all(array.size == 1 for array in _beside(checkpoint, split_key(key)[0]))


def _beside(checkpoint: Checkpoint, layer: str) -> list[AnyArray]:
    """The layer's own tensors."""
    return [array for key, array in checkpoint.tensors.items() if split_key(key)[0] == layer]


def _not_understood(
    checkpoint: Checkpoint, layer: str, families: Sequence[Family]
) -> CheckpointError:
    own = _own(checkpoint.tensors, layer, families)
    where = f"layer '{layer}'" if layer else "the network itself"
    held = listed((join_key(layer, parameter) for parameter in sorted(own)), MOST_KEYS)
    told = f"{checkpoint.path}: {where} is not understood: it holds {held}; "
    held_as_is = ""
    if checkpoint.plain is None and all(one.ndim < 2 for one in _beside(checkpoint, layer)):
        held_as_is = " If the network holds this as it is, --model FILE.py:FACTORY says so."
    alike = [family for family in families if (own & family.keys) - PLAIN_NAMES]
    if not alike:
        halves = (text for end, text in HALVES.items() if any(key.endswith(end) for key in own))
        why = next(halves, "no known family has such names")
        return CheckpointError(
            f"{told}{why}. Save it under the names of a family of the same form (README, posterior "
            f"families), or its mean as a plain network, with --prune-rule none.{held_as_is}"
        )

    def distance(family: Family) -> tuple[int, float]:
        lacking, foreign = _differences(own, family)
        return len(lacking) + len(foreign), -len(own & family.keys) / len(own | family.keys)

    nearest = min(alike, key=distance)
    lacking, foreign = _differences(own, nearest)
    differences = [f"lacks {listed(lacking, MOST_KEYS)}"] if lacking else []
    differences += [f"may not have {listed(foreign, MOST_KEYS)}"] if foreign else []
    close = {key: difflib.get_close_matches(key, lacking, n=1) for key in foreign}
    renamed = [f"{match[0]} for {key}" for key, match in close.items() if match]
    hint = f" (perhaps {listed(renamed)})" if renamed else ""
    wrong = " and ".join(differences) or "has other shapes"
    return CheckpointError(
        f"{told}the nearest known family is {nearest.name}; as such a layer it {wrong}{hint}. "
        f"Save the layer's complete state_dict under its library's own names.{held_as_is}"
    )


def _differences(own: Set[str], family: Family) -> tuple[list[str], list[str]]:
    """What a layer lacks to be one of the family's, and what it has that the family has not."""
    half = (part for group in family.optional if group & own for part in group - own)
    lacking = [*sorted(family.signature - own), *sorted(half)]
    return list(dict.fromkeys(lacking)), sorted(own - family.keys - family.plain)
