"""Sums with zero between tensors of one scale to which the network gives different grids.

    x on grid a, MaxPool(x) on grid b        MaxPool reads x + 0, which is on grid b

Such a sum rescales integers, as the graph that states both grids does. A tensor without a grid
that others read too is kept apart from one that a grid bounds in the same way. A concatenation
without a grid of parts on several gets a scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from deploykit.quantize.operators import SHARING, Kind
from deploykit.quantize.sharing import rescale_behind, rescale_inputs
from deploykit.quantize.structure import Layer, build_structure
from deploykit.spec.given import ActivationGrid
from deploykit.spec.network import Network

CURVED = frozenset((Kind.LEAKY_RELU,))
"""Whose input reaches further than its output, so that the output's grid is none for it."""


def separate_grids(network: Network) -> Network:
    """The same function, with a sum with zero wherever two grids meet."""
    if not network.given.activations:
        return network
    curved = list(_behind_curves(network))
    if curved:
        network = rescale_behind(network, curved)
    edges = list(_meeting(build_structure(network), network))
    return rescale_inputs(network, edges) if edges else network


def _behind_curves(network: Network) -> Iterator[str]:
    """Tensors with a grid of their own behind an operator whose input is on another, or on none."""
    grids = network.given.activations
    for layer in build_structure(network):
        own = grids.get(layer.output) if layer.kind in CURVED else None
        if own is not None and grids.get(layer.inputs[0]) != own:
            yield layer.output


def _meeting(layers: Sequence[Layer], network: Network) -> Iterator[tuple[str, str]]:
    """(output of a layer, what it reads) to be rescaled."""
    grids = network.given.activations
    read = _readers(network)
    found: dict[str, ActivationGrid | None] = {
        str(value.name): grids.get(str(value.name)) for value in network.model.graph.inputs
    }
    for layer in layers:
        found[layer.output] = grids.get(layer.output)
        if layer.kind not in SHARING:
            continue
        held = {name: found.get(name) for name in layer.inputs}
        stated = set(held.values())
        # What joins tensors of several grids, or one beside none, reaches as far as all of them.
        shared = next(iter(stated)) if len(stated) == 1 else None
        wanted = found[layer.output] = grids.get(layer.output) or shared
        for name, grid in held.items():
            alone = grid is None and (wanted is None or read.get(name, 0) == 1)
            if grid != wanted and not alone:
                yield layer.output, name


def _readers(network: Network) -> Mapping[str, int]:
    """How many nodes read each tensor; the app counts as one."""
    values: list[ir.Value] = [output for node in network.model.graph for output in node.outputs]
    return {
        str(value.name): len({use.node for use in value.uses()}) + value.is_graph_output()
        for value in [*network.model.graph.inputs, *values]
    }
