"""Which nodes and tensors a layer stands for in the plan."""

from __future__ import annotations

from deploykit.quantize.structure import Layer
from deploykit.spec.network import Network
from deploykit.spec.plan import ConstantPlan, LayerPlan
from deploykit.spec.whole_numbers import whole_inputs, whole_outputs


def quantized_name(network: Network, tensor: str) -> str:
    """Integer tensor behind a float tensor; the graph's own names are left to its ports.

    Whole numbers are a port themselves.
    """
    graph = network.model.graph
    own = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    own -= {str(value.name) for value in (*whole_inputs(network), *whole_outputs(network))}
    return f"{tensor}_quantized" if tensor in own else tensor


def layer_plan(network: Network, layer: Layer, constant: ConstantPlan | None) -> LayerPlan:
    """Which nodes and tensors a layer stands for, without weights."""
    inputs = tuple(quantized_name(network, name) for name in layer.inputs)
    output = quantized_name(network, layer.output)
    nodes = tuple(str(node.name) for node in layer.nodes)
    return LayerPlan(layer.name, layer.kind.value, nodes, inputs, output, constant=constant)
