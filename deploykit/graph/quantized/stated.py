"""A float network that states the grids of its tensors again, as any runtime evaluates them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import fresh_name, set_initializer
from deploykit.spec.given import ActivationGrid
from deploykit.spec.network import Network


def with_grids(network: Network) -> Network:
    """QuantizeLinear, Clip where int8 is not filled, DequantizeLinear behind each such tensor."""
    model = network.model.clone()
    graph = model.graph
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs}
    for name, grid in network.given.activations.items():
        _state(graph, values[name], grid)
    return network.rewritten(model)


def _state(graph: ir.Graph, value: ir.Value, grid: ActivationGrid) -> None:
    name = str(value.name)

    def held(part: str, array: np.generic) -> ir.Value:
        return set_initializer(graph, fresh_name(graph, f"{name}.{part}"), np.asarray(array))

    scale = held("scale", np.float32(grid.quantization.scale))
    zero = held("zero_point", np.int8(grid.quantization.zero_point))
    made = [ir.node("QuantizeLinear", [value, scale, zero])]
    if not grid.fills:
        ends = [held("low", np.int8(grid.low)), held("high", np.int8(grid.high))]
        made.append(ir.node("Clip", [made[0].outputs[0], *ends]))
    made.append(ir.node("DequantizeLinear", [made[-1].outputs[0], scale, zero]))
    for node in made:
        node.outputs[0].name = fresh_name(graph, f"{name}.{node.op_type}")
    last = made[-1].outputs[0]
    last.shape, last.type = value.shape, value.type
    is_output = value.is_graph_output()
    ir.convenience.replace_all_uses_with(value, last, replace_graph_outputs=True)
    made[0].replace_input_with(0, value)
    producer = value.producer()
    if producer is None:
        for node in reversed(made):
            graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, made)
    if is_output:
        value.name = fresh_name(graph, f"{name}.unquantized")
        last.name = name
