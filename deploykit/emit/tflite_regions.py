"""Islands and rearrangements in a .tflite file, through the float writer's operators.

    Island      DEQUANTIZE per input -> float operators -> QUANTIZE
    Rearrange   RESHAPE and TRANSPOSE on the int8 tensors themselves

The float writer keeps each tensor's axes in the order that its operators like and transposes only
where it must; at the borders stand the orders that integer tensors have in the file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deploykit.emit.tflite_any_batch import Part, write_open
from deploykit.emit.tflite_float_body import lower_nodes
from deploykit.emit.tflite_float_order import port_order, stored
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import Options, TfliteGraph, TfliteQuantization
from deploykit.emit.tflite_lowering import reshape
from deploykit.spec.bodies import known_body
from deploykit.spec.network import Network
from deploykit.spec.operators import Island, Rearrange
from deploykit.spec.quantized import Batch, QuantizedNetwork
from deploykit.spec.stacked_body import stacked_body
from deploykit.spec.stored_weight import stored_weight


def write_island(
    operator: Island, network: QuantizedNetwork, graph: TfliteGraph, inputs: list[int], output: int
) -> None:
    """inputs: indices of the int8 tensors, in the order of the operator's; output: of its own."""
    real = [_dequantized(graph, index) for index in inputs]
    result = _lowered(operator, network, graph, real)
    graph.operator("QUANTIZE", (result,), output, Options("QuantizeOptions"))


def write_rearrange(
    operator: Rearrange, network: QuantizedNetwork, graph: TfliteGraph, source: int, output: int
) -> None:
    """source, output: indices of the int8 tensors."""
    result = _lowered(operator, network, graph, [source])
    if result == source:
        reshape(graph, source, output)
    else:
        graph.redirect(result, output)


def _dequantized(graph: TfliteGraph, source: int) -> int:
    tensor = graph.tensors[source]
    real = graph.activation(f"{tensor.name}/real", tensor.shape, None, np.float32)
    graph.operator("DEQUANTIZE", (source,), real, Options("DequantizeOptions"))
    return real


def _lowered(
    operator: Island | Rearrange, network: QuantizedNetwork, graph: TfliteGraph, inputs: list[int]
) -> int:
    """Index of the body's result, in the order of an integer tensor."""
    body = known_body(operator)
    read = operator.inputs if isinstance(operator, Island) else (operator.input,)
    shapes = [network.tensors[name].shape for name in read]
    if network.batch is Batch.FIXED:
        return _append(body, shapes, graph, inputs)

    def for_samples(samples: int) -> Part:
        alone = TfliteGraph()
        many = [(samples * shape[0], *shape[1:]) for shape in shapes]
        held = []
        for index, shape in zip(inputs, many, strict=True):
            tensor = graph.tensors[index]
            wide = stored(shape, port_order(len(shape)))
            held.append(alone.adopt(replace(tensor, shape=wide)))
        result = _append(stacked_body(body, samples), many, alone, held)
        return Part(alone, tuple(held), result)

    return write_open(graph, inputs, for_samples, operator.name)


def _append(
    body: Network, shapes: list[tuple[int, ...]], graph: TfliteGraph, inputs: list[int]
) -> int:
    """Lower a body's nodes. shapes: of its inputs, whose tensors are `inputs`."""
    site = FloatSite(body.model.opset_imports.get("", 1), graph)
    for port, shape, index in zip(body.model.graph.inputs, shapes, inputs, strict=True):
        order = port_order(len(shape))
        assert graph.tensors[index].shape == stored(shape, order)
        site.places[str(port.name)] = Place(index, shape, order)
    first = len(graph.tensors)
    lower_nodes(body.model.graph, site)
    _store_weights(graph, first)
    (result,) = body.model.graph.outputs
    place = site.places[str(result.name)]
    return site.in_order(place, port_order(len(place.shape)))


def _store_weights(graph: TfliteGraph, first: int) -> None:
    """Constants from the tensor `first` on, behind a DEQUANTIZE where int8 holds them exactly.

    XNNPACK dequantizes them once, when the file is loaded.
    """
    for index in range(first, len(graph.tensors)):
        tensor = graph.tensors[index]
        if tensor.values is None or tensor.dtype != np.float32:
            continue
        stored = stored_weight(tensor.values)
        if stored is not None:
            quantization = TfliteQuantization(stored.scale, 0, stored.axis)
            graph.store(index, stored.values, quantization)
