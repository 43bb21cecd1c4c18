"""Whole numbers that enter and leave a network: rows of a table, and which entry is largest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from deploykit.spec.network import Network

KEEPING = frozenset(("Cast", "Identity"))
"""Operators that leave whole numbers as they are, where their result holds whole numbers too."""


WHOLE = (ir.DataType.INT32, ir.DataType.INT64)


def whole_inputs(network: Network) -> tuple[ir.Value, ...]:
    """The graph's inputs of int32 or int64, in order."""
    graph = network.model.graph
    return tuple(
        value
        for value in graph.inputs
        if value.name not in graph.initializers and value.dtype in WHOLE
    )


def whole_outputs(network: Network) -> tuple[ir.Value, ...]:
    """The graph's outputs of int32 or int64, in order."""
    return tuple(value for value in network.model.graph.outputs if value.dtype in WHOLE)


def answer_of(value: ir.Value) -> ir.Node | None:
    """The ArgMax that computes an output, itself or with a Cast to whole numbers behind it.

    None where another operator does, or where others read it too.
    """
    node = value.producer()
    if value.uses():
        return None
    if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        source = node.inputs[0]
        if len(source.uses()) != 1 or source.is_graph_output():
            return None
        node = source.producer()
    return node if node is not None and node.op_type == "ArgMax" else None


def real_inputs(network: Network) -> tuple[str, ...]:
    """Names of the graph's other inputs, in order."""
    whole = {value.name for value in whole_inputs(network)}
    return tuple(str(value.name) for value in network.model.graph.inputs if value.name not in whole)


def row_counts(network: Network) -> Mapping[str, int | None]:
    """By input of whole numbers, how many rows the smallest table has from which it takes rows.

    None where any other operator reads it, or nothing does: any number may be meant.
    """
    found: dict[str, int | None] = {}
    for value in whole_inputs(network):
        counts = [table_rows(node, read) for node, read in readers_of_ids(value)]
        known = [count for count in counts if count is not None]
        whole = known and len(known) == len(counts) and not value.is_graph_output()
        found[str(value.name)] = min(known) if whole else None
    return found


def readers_of_ids(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The nodes that read whole numbers, directly or behind a Cast to whole numbers, and as what.

    A Cast to anything else is such a node itself.
    """
    for node in dict.fromkeys(use.node for use in value.uses()):
        result = node.outputs[0]
        whole = result.dtype in WHOLE
        if node.op_type in KEEPING and whole and not result.is_graph_output():
            yield from readers_of_ids(result)
        else:
            yield node, value


def table_rows(node: ir.Node, ids: ir.Value) -> int | None:
    """Rows of the constant table [rows, columns] of which a node takes those that `ids` name.

    None where it does something else.
    """
    if node.op_type != "Gather" or node.domain not in {"", "ai.onnx"} or node.inputs[1] is not ids:
        return None
    axis = int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
    table = None if node.inputs[0] is None else node.inputs[0].const_value
    if table is None or len(table.shape) != 2 or axis not in (0, -2):
        return None
    return len(table.numpy())
