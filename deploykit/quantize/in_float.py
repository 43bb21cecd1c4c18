"""Layers with weights that the user leaves in float: they become islands.

The layer's node, and the Relu or Clip behind it, compute on real values between a DequantizeLinear
and a QuantizeLinear in both files, with the float32 weights as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from deploykit.errors import QuantizationError
from deploykit.quantize.bits import EIGHT_BITS, WeightBits, unknown_layer
from deploykit.quantize.given import given_integers, trained_bits
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.structure import build_structure
from deploykit.quantize.tied import tied_layers
from deploykit.spec.listing import listed
from deploykit.spec.network import Network


def leave_in_float(
    network: Network, names: Collection[str], asked: WeightBits = EIGHT_BITS
) -> Network:
    """The same graph, with these layers marked. network: canonical, lowered, nothing marked.

    asked: says where the names come from, for errors.

    Raises QuantizationError where a name is no layer's with weights, where a layer that stays in
    integers shares its weights, or where these came as integers.
    """
    if not names:
        return network
    layers = build_structure(network)
    weighted = [layer.name for layer in layers if layer.kind in WEIGHTED]
    tied = tied_layers(layers)
    held = given_integers(layers, tied, network.given)
    for name in names:
        if name not in weighted:
            others = [layer.name for layer in layers if layer.name not in weighted]
            raise QuantizationError(unknown_layer(asked.entry(name), name, weighted, others))
        left = [one.name for one in tied[name] if one.name not in names]
        if left:
            raise QuantizationError(
                f"{asked.entry(name)}: it shares its weights with {listed(left)}, and files "
                f"hold them once; leave all of them in float: "
                f"{' '.join(f'--layer-bits {one}=float' for one in left)}"
            )
        if name in held:
            bits = trained_bits(tied[name][0], network.given)
            raise QuantizationError(
                f"{asked.entry(name)}: its weights came as integers of {bits} bits, which are kept "
                "and lose nothing; leave it out"
            )
    nodes = {layer.nodes[0].name for layer in layers if layer.name in names}
    return replace(network, in_float=frozenset(str(name) for name in nodes))


def in_float_order(network: Network) -> tuple[str, ...]:
    """The marked layers in graph order."""
    every = (str(node.name) for node in network.model.graph)
    return tuple(name for name in every if name in network.in_float)
