"""Reading and rewriting an onnx_ir graph that the caller owns (a clone, never a shared one)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.names import free_name, tensor_names
from deploykit.spec.network import Network


def constant(value: ir.Value | None) -> AnyArray | None:
    """The array behind an initializer or a Constant node's output, else None."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def floats(value: ir.Value | None) -> Float64Array | None:
    """Like `constant`, in float64."""
    array = constant(value)
    return None if array is None else array.astype(np.float64)


def attribute_ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """A list attribute, or its default where it is absent."""
    attribute = node.attributes.get(name)
    return tuple(default) if attribute is None else tuple(attribute.as_ints())


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default where it is absent."""
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default where it is absent."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def attribute_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute, or its default where it is absent."""
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.as_string())


def padded(node: ir.Node) -> bool:
    """Whether a window of a Conv or pool may reach beyond its input: pads written out or implied.

    auto_pad VALID is none; SAME_UPPER and SAME_LOWER depend on the input's size and count as some.
    """
    automatic = attribute_string(node, "auto_pad", "NOTSET")
    return automatic.startswith("SAME") or any(attribute_ints(node, "pads", ()))


def label(node: ir.Node) -> str:
    """How messages name a node: its name, or the name of what it computes."""
    return node.name or str(node.outputs[0].name)


def readers(value: ir.Value) -> tuple[ir.Node, ...]:
    """The nodes that read a value, each once, in graph order of use."""
    return tuple(dict.fromkeys(use.node for use in value.uses()))


def set_initializer(graph: ir.Graph, name: str, array: AnyArray) -> ir.Value:
    """Give the initializer `name` a new array, creating it where it is missing."""
    owned = np.array(array, order="C")
    tensor = ir.tensor(owned, name=name)
    value = graph.initializers.get(name)
    if value is None:
        value = ir.Value(name=name, const_value=tensor)
        value.shape, value.type = ir.Shape(owned.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(value)
        return value
    value.const_value, value.shape = tensor, ir.Shape(owned.shape)
    value.type = ir.TensorType(tensor.dtype)
    return value


def fresh_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or with the first free number behind it."""
    return free_name(wanted, tensor_names(graph))


def set_operand(graph: ir.Graph, node: ir.Node, index: int, array: AnyArray) -> None:
    """Give a node a constant of its own as input `index`."""
    name = fresh_name(graph, f"{node.outputs[0].name}.{index}")
    node.replace_input_with(index, set_initializer(graph, name, array))


def take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old`: name, shape, type and readers, graph outputs included."""
    name, new.shape, new.type = str(old.name), old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = fresh_name(graph, f"{name}.unused")
    new.name = name


def bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    """Remove a one-output node; who read its output reads `source`.

    A graph output keeps its name: the producer of `source` takes it over.
    """
    output = node.outputs[0]
    if output.is_graph_output():
        if source.producer() is None:
            raise ValueError(f"{label(node)} connects a graph input straight to an output")
        name = output.name
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name
        return
    ir.convenience.replace_all_uses_with(output, source)
    graph.remove(node, safe=True)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Remove initializers that no node reads."""
    unused = [
        name
        for name, value in graph.initializers.items()
        if not value.uses() and not value.is_graph_output()
    ]
    for name in unused:
        del graph.initializers[name]


def output_names(network: Network) -> tuple[str, ...]:
    """Names of the graph's outputs."""
    return tuple(str(value.name) for value in network.model.graph.outputs)
