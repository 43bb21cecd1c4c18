"""Names of tensors that a graph does not have yet."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or with the first free number behind it."""
    if wanted not in taken:
        return wanted
    number = 1
    while f"{wanted}_{number}" in taken:
        number += 1
    return f"{wanted}_{number}"


def tensor_names(graph: ir.Graph) -> set[str]:
    """Of all inputs, initializers and what nodes compute."""
    taken = set(graph.initializers)
    taken.update(str(output.name) for node in graph for output in node.outputs)
    taken.update(str(value.name) for value in graph.inputs)
    return taken
