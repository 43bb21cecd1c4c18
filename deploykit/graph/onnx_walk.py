"""Every part of an ONNX model, however deep in subgraphs and functions it lies."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the model stores: initializers and attributes, subgraphs included."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, and the bodies of If, Loop and Scan at any depth."""
    yield model.graph
    for node in nodes(model):
        yield from _bodies(node)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph, of its subgraphs and of the model's local functions."""
    waiting = [*model.graph.node]
    for function in model.functions:
        waiting.extend(function.node)
    while waiting:
        node = waiting.pop()
        yield node
        for body in _bodies(node):
            waiting.extend(body.node)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
