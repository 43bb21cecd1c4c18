"""Linears of a float graph: MatMul and Gemm whose second factor is a constant matrix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import Float32Array
from deploykit.spec.names import free_name, tensor_names
from deploykit.spec.network import Network, static_shape


def linear_weight(node: ir.Node) -> Float32Array | None:
    """[O, I] of a linear; None of any other node."""
    if node.op_type not in {"MatMul", "Gemm"} or node.domain not in {"", "ai.onnx"}:
        return None
    factor, source = node.inputs[1], node.inputs[0]
    if factor is None or source is None or source.const_value is not None:
        return None
    held = factor.const_value
    if held is None or len(held.shape) != 2:
        return None
    matrix = np.asarray(held.numpy(), dtype=np.float32)
    return matrix if transposed(node) else np.ascontiguousarray(matrix.T)


def transposed(node: ir.Node) -> bool:
    """Whether a linear's matrix is [O, I] in the graph, as the layer has it."""
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))


def linears(network: Network) -> dict[str, ir.Node]:
    """By name, in graph order."""
    return {str(node.name): node for node in network.model.graph if linear_weight(node) is not None}


def flattened_images(node: ir.Node) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of images that a linear's input may be flattened from; empty where of none.

    The .tflite file may have its columns in the order of H, W, C then.
    """
    images: dict[tuple[int, int, int], None] = {}
    source = node.inputs[0]
    while source is not None:
        shape = static_shape(source)
        if shape is not None and len(shape) == 4:
            images[shape[1], shape[2], shape[3]] = None
        maker = source.producer()
        source = None if maker is None or not maker.inputs else maker.inputs[0]
    columns = linear_weight(node)
    width = 0 if columns is None else columns.shape[1]
    return tuple(image for image in images if image[0] * image[1] * image[2] == width)


def with_weights(network: Network, weights: Mapping[str, Float32Array]) -> Network:
    """The same graph with other numbers in some linears. weights: [O, I] by node."""
    model = network.model.clone()
    graph = model.graph
    made: dict[tuple[str, bool], ir.Value] = {}
    taken = tensor_names(graph)
    for node in graph:
        if node.name is None or node.name not in weights:
            continue
        old = node.inputs[1]
        assert old is not None
        key = (str(old.name), transposed(node))
        if key not in made:
            new = weights[node.name] if transposed(node) else weights[node.name].T
            array = np.ascontiguousarray(new, np.float32)
            kind = "rows" if transposed(node) else "columns"
            name = free_name(f"{old.name}.{kind}", taken)
            taken.add(name)
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
            graph.register_initializer(value)
            made[key] = value
        node.replace_input_with(1, made[key])
        if not old.uses():
            graph.initializers.pop(str(old.name), None)
    return network.rewritten(model)
