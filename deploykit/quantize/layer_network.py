"""One layer of a float graph as a network of its own, its weights replaced where they are given."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.network import FloatEvaluator, Network, static_shape


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


def run_layer(layer: Network, inputs: Tensors, evaluate: FloatEvaluator, batch: int) -> AnyArray:
    """A layer's output for samples [N * rows, ...], or whatever one output a small graph has.

    batch: of the whole network. Where tensors hold other numbers of rows for it, as a linear over
    tokens does, so many samples at a time are evaluated as the graph is made for.
    """
    graph = layer.model.graph
    (output,) = graph.outputs
    rows = {str(port.name): (static_shape(port) or (batch,))[0] for port in graph.inputs}
    given = (static_shape(output) or (batch,))[0]
    if all(count == batch for count in (*rows.values(), given)):
        return evaluate(layer, inputs)[str(output.name)]
    first = next(iter(rows))
    samples = len(inputs[first]) * batch // rows[first]
    found = []
    for start in range(0, samples, batch):
        part = {}
        for name, count in rows.items():
            wanted = np.arange(start * count // batch, (start + batch) * count // batch)
            part[name] = np.take(inputs[name], wanted, axis=0, mode="clip")
        found.append(evaluate(layer, part)[str(output.name)])
    return np.concatenate(found)[: samples * given // batch]


def batch_of(network: Network) -> int:
    """How many samples a network's inputs state."""
    shape = static_shape(network.model.graph.inputs[0])
    assert shape is not None
    return shape[0]
