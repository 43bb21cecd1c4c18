"""A rewritten graph in the element types, and with the node names, that a file may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import set_initializer
from deploykit.spec.network import Network


def in_own_types(network: Network, exact: Network) -> Network:
    """Every initializer in the element type that it had; new ones in that of what reads them.

    Node names are made unique, which ONNX Runtime asks for; those of `network` come first.
    """
    types = {
        name: value.const_value.numpy().dtype
        for name, value in network.model.graph.initializers.items()
        if value.const_value is not None
    }
    common = _element_type(network)
    model = exact.model.clone()
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is None:
            continue
        array = value.const_value.numpy()
        wanted = types.get(name) or _read_as(value, types, common)
        if array.dtype == np.float64 and wanted != np.float64:
            set_initializer(model.graph, name, array.astype(wanted))
    _name_apart(model.graph, {str(node.name) for node in network.model.graph if node.name})
    return exact.rewritten(model)


def _read_as(
    value: ir.Value, types: Mapping[str, np.dtype[Any]], common: np.dtype[Any]
) -> np.dtype[Any]:
    """The float type of what a new initializer is computed with; `common` where nothing tells."""
    for use in value.uses():
        beside = [other for other in use.node.inputs if other is not None and other is not value]
        for other in (*beside, *use.node.outputs):
            if str(other.name) in types and types[str(other.name)].kind == "f":
                return types[str(other.name)]
            kind = other.dtype if other.const_value is None else None
            if kind is not None and kind.is_floating_point():
                return np.dtype(kind.numpy())
    return common


def _name_apart(graph: ir.Graph, before: set[str]) -> None:
    """before: names that keep their nodes; a new node with one of them gets a number."""
    taken: set[str] = set()
    named = [node for node in graph if node.name]
    for node in sorted(named, key=lambda node: node.name not in before):
        name, count = str(node.name), 1
        while node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(str(node.name))


def _element_type(network: Network) -> np.dtype[Any]:
    for value in network.model.graph.inputs:
        if value.dtype is not None and value.dtype.is_floating_point():
            return value.dtype.numpy()
    return np.dtype(np.float32)
