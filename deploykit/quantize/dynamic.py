"""What files of any batch ask of a network: every row of a tensor belongs to one sample."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.errors import QuantizationError
from deploykit.quantize.nodes import activations, constant, joined_axis, spans_of
from deploykit.quantize.operators import BINARY, JOINING, Kind
from deploykit.quantize.regions import body_of
from deploykit.quantize.structure import Layer
from deploykit.spec.network import Network, static_shape
from deploykit.spec.stacked_body import stacked_body

CUTS = "cuts or joins along the batch; keep the samples apart in the network"


def check_dynamic(network: Network, layers: Sequence[Layer]) -> None:
    """Raise QuantizationError for what means one thing to a batch of 1, another to one of more."""
    for value in network.model.graph.inputs:
        shape = static_shape(value)
        if shape is None or shape[0] != 1:
            raise QuantizationError(
                f"--batch dynamic: the network's input {value.name} is {list(shape or ())}; give "
                "it a batch of 1 with --input-shape"
            )
    for layer in layers:
        if layer.region is not None:
            stacked_body(body_of(network, layer.region), 1)  # raises where it has no such form
            continue
        along = joined_axis(layer.nodes[0]) if layer.kind is Kind.CONCAT else None
        if layer.kind is Kind.SLICE:
            along = spans_of(layer.nodes[0])[layer.place][0]
        met = CUTS if along == 0 else _meeting(layer)
        if met is not None:
            raise QuantizationError(f"--batch dynamic: {layer.name} {met}, or leave --batch out")


def _meeting(layer: Layer) -> str | None:
    """Why a row of a layer's output is not made of one row of what it reads; None where it is.

    A constant of several rows would be for one sample alone.
    """
    read = activations(layer.nodes[0])
    shapes = [static_shape(value) for value in (*read, *layer.nodes[-1].outputs)]
    rows = {None if shape is None else shape[0] for shape in shapes}
    if layer.kind in BINARY | JOINING and layer.kind is not Kind.CONCAT:
        (rank,) = {len(shape) for shape in shapes if shape is not None}
        held = [constant(layer.nodes[0], index) for index in (0, 1)]
        for one in held:
            if one is not None and one.ndim == rank and one.shape[0] != 1:
                return (
                    f"reads a constant {list(one.shape)}, whose {one.shape[0]} rows lie along the "
                    "first axis, as the samples do in files of any batch; put the samples in front "
                    "(batch_first=True)"
                )
    return None if len(rows) == 1 and None not in rows else CUTS
