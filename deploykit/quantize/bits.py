"""How many bits the weights of each layer get."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from deploykit.errors import QuantizationError
from deploykit.quantize.nodes import groups_of, window_of
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.structure import Layer
from deploykit.quantize.tied import Tied
from deploykit.spec.carriers import CarrierOptions, Carriers, chosen_carriers, layer_kind
from deploykit.spec.listing import listed

WEIGHT_BITS = (2, 3, 4, 5, 6, 8)
"""That a user may ask for; 3, 5 and 6 are values inside of the next wider carrier."""
NAMES_SHOWN = 3


@dataclass(frozen=True)
class WeightBits:
    """default: of every layer that `layers` does not name; None: `plan` names all of them.

    in_float: layers that get none. stated: by layer, how the user spelled it where that was not a
    flag. plan: the file, as errors are to call it.
    """

    default: int | None = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()
    stated: Mapping[str, str] = field(default_factory=dict, compare=False)
    plan: str = field(default="", compare=False)

    def entry(self, name: str) -> str:
        """What names a layer: "--layer-bits conv1=4", or "[bits] conv1 = 4"."""
        return self.stated.get(name, f"--layer-bits {name}={self.layers.get(name, 'float')}")


EIGHT_BITS = WeightBits()


def bits_by_layer(
    layers: Sequence[Layer], tied: Tied, asked: WeightBits, trained: Mapping[str, int]
) -> dict[str, int]:
    """That every layer with weights is asked to have. trained: by layer, where integers were given.

    Raises QuantizationError where a name is no layer's, or where layers that share their weights,
    or given integers, ask for other bits.
    """
    weighted = [layer.name for layer in layers if layer.kind in WEIGHTED]
    for name in asked.layers:
        if name not in weighted:
            others = [layer.name for layer in layers if layer.name not in weighted]
            raise QuantizationError(unknown_layer(asked.entry(name), name, weighted, others))
    kept = {trained.get(name) for name in weighted}
    if (
        weighted
        and asked.default not in {None, EIGHT_BITS.default}
        and not kept & {None, asked.default}
    ):
        told = ", ".join(str(bits) for bits in sorted(bits for bits in kept if bits))
        raise QuantizationError(
            f"--bits {asked.default}: the weights of every layer came as integers of {told} bits, "
            "which are kept; leave it out"
        )
    found = {}
    for name in weighted:
        sharing = [one.name for one in tied[name]]
        named = {one: asked.layers[one] for one in sharing if one in asked.layers}
        if len(set(named.values())) > 1:
            told = " and ".join(map(asked.entry, named))
            raise QuantizationError(
                f"{told}: these layers share their weights; give them the same bits"
            )
        chosen = next(iter(named.values()), asked.default)
        if chosen is None:
            raise QuantizationError(
                f"{asked.plan} states no bits for layer {name}; add it there, or give "
                f"--layer-bits {name}=8"
            )
        if named and trained.get(name, chosen) != chosen:
            raise QuantizationError(
                f"{asked.entry(next(iter(named)))}: its weights came as integers of "
                f"{trained[name]} bits, which are kept; leave it out"
            )
        found[name] = chosen
    return found


def unknown_layer(entry: str, name: str, weighted: Sequence[str], others: Collection[str]) -> str:
    """Why `entry` names no layer. weighted: those that have weights."""
    if name in others:
        return f"{entry}: this layer has no weights; leave it out"
    near = get_close_matches(name, weighted, NAMES_SHOWN, cutoff=0.0)
    return (
        f"{entry}: no layer has this name; the nearest are {listed(near)} "
        "(names as the export's table has them)"
    )


def carriers_of(
    layer: Layer, bits: int, shape: tuple[int, ...], options: CarrierOptions
) -> Carriers:
    """How files store a layer's weights. shape: [O, ...]."""
    node = layer.nodes[0]
    window = window_of(node) if len(shape) == 4 else None
    plain = window is None or (window.strides == (1, 1) and not any(window.pads))
    kind = layer_kind(shape, plain, groups_of(node))
    return chosen_carriers(kind, bits, shape, options)
