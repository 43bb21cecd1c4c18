"""One layer of a float graph as a network of its own, its weights replaced where they are given."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network


def layer_network(
    network: Network, layer: Layer, weight: AnyArray | None = None, bias: AnyArray | None = None
) -> Network:
    """From the layer's inputs to its output, both by their names; in float32.

    weight, bias: in place of its first node's own.
    """
    read = tuple(dict.fromkeys(layer.inputs))
    graph = ir.convenience.extract(network.model.graph, read, [layer.output])
    first = next(node for node in graph if node.name == layer.nodes[0].name)
    for index, array in ((1, weight), (2, bias)):
        if array is not None:
            held = first.inputs[index]
            assert held is not None
            held.const_value = ir.tensor(array, name=held.name)
    return network.rewritten(ir.Model(graph, ir_version=network.model.ir_version))
