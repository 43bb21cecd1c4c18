"""Where a network falls into blocks: stretches of layers with one tensor in and one out."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.quantize.structure import Layer


def find_blocks(layers: Sequence[Layer], sources: Sequence[str]) -> tuple[tuple[Layer, ...], ...]:
    """Layers in graph order, cut wherever what follows reads one tensor of what came before.

    A residual block is one block, so is a stretch with several inputs of the network; a chain falls
    into its layers. sources: inputs of the network.
    """
    last = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    made = dict.fromkeys(sources, -1)
    blocks: list[tuple[Layer, ...]] = []
    begin = 0
    for index, layer in enumerate(layers):
        made[layer.output] = index
        alive = [name for name in made if last.get(name, -1) > index]
        if len(alive) <= 1:
            blocks.append(tuple(layers[begin : index + 1]))
            begin = index + 1
    if begin < len(layers):
        blocks.append(tuple(layers[begin:]))
    return tuple(blocks)
