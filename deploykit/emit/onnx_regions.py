"""Islands and rearrangements in an ONNX file: the float graph's own nodes.

    Island      DequantizeLinear per input (-> Sum, see onnx_unfused) -> nodes -> QuantizeLinear
    Rearrange   the nodes on the uint8 tensors themselves

The metadata entry "deploykit.region:<uint8 result>" says what the nodes before a result stand for
and which tensors they read.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from deploykit.emit.onnx_format import REGION_KEY
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.emit.onnx_unfused import unfused
from deploykit.spec.arrays import AnyArray
from deploykit.spec.bodies import known_body
from deploykit.spec.operators import Island, Rearrange
from deploykit.spec.quantized import Batch
from deploykit.spec.stack_recurrent import RECURRENT
from deploykit.spec.stacked_body import stacked_body
from deploykit.spec.stored_weight import stored_weight


def write_island(operator: Island, graph: OnnxGraph) -> None:
    """The island's nodes between real values."""
    reals = [graph.dequantize(name, operator.name) for name in operator.inputs]
    inputs = unfused(operator, reals, graph)
    output = graph.real(operator.output)
    _write_nodes(operator, inputs, output, graph)
    graph.quantize(output, operator.output)
    _note(operator, list(operator.inputs), graph)


def write_rearrange(operator: Rearrange, graph: OnnxGraph) -> None:
    """The chain's nodes between integers."""
    inputs = [graph.integer(operator.input)]
    _write_nodes(operator, inputs, graph.integer(operator.output), graph)
    _note(operator, [operator.input], graph)


def opset_of(operators: list[Island | Rearrange]) -> int:
    """The opset that the nodes of the bodies are written for; they come from one float graph."""
    return max((known_body(one).model.opset_imports[""] for one in operators), default=0)


def _note(operator: Island | Rearrange, inputs: list[str], graph: OnnxGraph) -> None:
    stands_for = {"operator": type(operator).__name__, "name": operator.name, "inputs": inputs}
    graph.metadata[REGION_KEY + graph.integer(operator.output)] = json.dumps(stands_for)


def _write_nodes(
    operator: Island | Rearrange, inputs: list[str], output: str, graph: OnnxGraph
) -> None:
    """The body's nodes, its inputs and output under other names, all else under fresh ones."""
    held = known_body(operator)
    if graph.batch is Batch.DYNAMIC:
        held = stacked_body(held, 1)
    body = held.model.graph
    names = {str(port.name): name for port, name in zip(body.inputs, inputs, strict=True)}
    (result,) = body.outputs
    names[str(result.name)] = output

    def renamed(value: ir.Value | None) -> str:
        if value is None or not value.name:
            return ""
        if value.name not in names:
            if value.const_value is not None:
                names[value.name] = _constant(value.name, value.const_value.numpy(), graph)
            else:
                names[value.name] = graph.fresh(value.name)
        return names[value.name]

    for alike in _alike(body):
        node = alike[0]
        proto: onnx.NodeProto = ir.to_proto(node)
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute}
        read = [
            next((value for value in values if value.uses() or value is result), None)
            for values in zip(*(one.outputs for one in alike), strict=True)
        ]
        graph.outputs_node(
            node.op_type,
            [renamed(value) for value in node.inputs],
            [renamed(value) for value in read],
            operator.name if result in read else graph.fresh_node(str(node.name)),
            attributes,
        )


def _alike(body: ir.Graph) -> list[list[ir.Node]]:
    """Nodes in order; those that give different results of one recurrent layer are one.

    ONNX Runtime merges equal nodes itself, and fails where they leave out different results.
    """
    groups: dict[object, list[ir.Node]] = {}
    for node in body:
        attributes = tuple(sorted((key, str(one.value)) for key, one in node.attributes.items()))
        same = (node.op_type, tuple(node.inputs), attributes)
        groups.setdefault(same if node.op_type in RECURRENT else node, []).append(node)
    return list(groups.values())


def _constant(name: str, values: AnyArray, graph: OnnxGraph) -> str:
    """A constant; where int8 holds it without loss, that, a Cast and a Mul.

    ONNX Runtime folds these two when it loads the file, and a DequantizeLinear it does not.
    """
    stored = stored_weight(values) if values.dtype == np.float32 else None
    if stored is None:
        return graph.initializer(name, values)
    integers = graph.initializer(name, stored.values)
    along = [-1 if axis == stored.axis else 1 for axis in range(values.ndim)]
    scale = graph.initializer(f"{name}.scale", stored.scale.reshape(along))
    steps, real = graph.fresh(f"{name}.steps"), graph.fresh(f"{name}.real")
    graph.helper("Cast", [integers], steps, f"{integers}.cast", {"to": onnx.TensorProto.FLOAT})
    return graph.helper("Mul", [steps, scale], real, f"{integers}.scale")
