"""A graph without what nobody reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deploykit.emit.tflite_graph import TfliteGraph


def live_part(graph: TfliteGraph, ports: Sequence[int]) -> tuple[TfliteGraph, Mapping[int, int]]:
    """The operators and tensors that the file's ports need, and the new index of each tensor.

    ports: indices of the inputs and outputs, which stay in any case.
    """
    needed = set(ports)
    operators = []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs, operator.outputs)
            operators.append(operator)
    index = {old: new for new, old in enumerate(sorted(needed))}
    live = TfliteGraph(graph.batch)
    live.tensors = [graph.tensors[old] for old in index]
    live.operators = [
        replace(
            operator,
            inputs=tuple(index[old] for old in operator.inputs),
            outputs=tuple(index[old] for old in operator.outputs),
        )
        for operator in reversed(operators)
    ]
    return live, index
