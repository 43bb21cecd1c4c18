"""Put moved tensors together from contiguous runs of what layers put out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import fresh_name, set_initializer
from deploykit.graph.passes.reorder_groups import Moved
from deploykit.graph.passes.reorder_runs import Run


def rewire(graph: ir.Graph, moved: Mapping[str, Moved], runs: Mapping[str, Sequence[Run]]) -> None:
    """Every tensor of `runs` becomes a Concat of its runs, or its one run; unread moves go.

    A source is split where all of it is read, behind the node that makes it; else it is sliced.
    """
    parts = _cut_sources(graph, moved, runs)
    for name, wanted in runs.items():
        old = moved[name].value
        pieces = [parts[run] for run in wanted]
        if len(pieces) == 1:
            ir.convenience.replace_all_uses_with(old, pieces[0])
            continue
        joined = ir.node("Concat", pieces, {"axis": moved[name].axis}, name=f"{name}.joined")
        (made,) = joined.outputs
        made.shape, made.type = old.shape, old.type
        graph.insert_before(moved[name].node, joined)
        ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
        old.name, made.name = fresh_name(graph, f"{name}.unused"), name
    for node in reversed([held.node for held in moved.values()]):
        unread = not any(value.uses() or value.is_graph_output() for value in node.outputs)
        if node.graph is graph and unread:
            graph.remove(node, safe=True)


def _cut_sources(
    graph: ir.Graph, moved: Mapping[str, Moved], runs: Mapping[str, Sequence[Run]]
) -> dict[Run, ir.Value]:
    """The value that holds each run."""
    values = {str(value.name): value for value in graph.inputs}
    values.update({str(value.name): value for node in graph for value in node.outputs})
    wanted: dict[str, set[Run]] = {}
    axes: dict[str, int] = {}
    for name, several in runs.items():
        for run in several:
            wanted.setdefault(run.tensor, set()).add(run)
            axes[run.tensor] = moved[name].axis
    made: dict[Run, ir.Value] = {}
    for tensor, found in wanted.items():
        ordered = sorted(found, key=lambda run: run.start)
        cut = _cut(graph, values[tensor], axes[tensor], ordered)
        made.update(zip(ordered, cut, strict=True))
    return made


def _cut(graph: ir.Graph, source: ir.Value, axis: int, runs: Sequence[Run]) -> Sequence[ir.Value]:
    """The runs of one tensor, which do not overlap. runs: in order."""
    assert source.shape is not None and source.name is not None
    size = source.shape[axis]
    lengths = [run.stop - run.start for run in runs]
    if lengths == [size]:
        return [source]
    if sum(lengths) == size:
        index = _integers(graph, f"{source.name}.runs", lengths)
        node = ir.node(
            "Split",
            [source, index],
            {"axis": axis},
            num_outputs=len(runs),
        )
        nodes = [node]
    else:
        nodes = [
            ir.node(
                "Slice",
                [
                    source,
                    *(
                        _integers(graph, f"{source.name}.slice", [number])
                        for number in (run.start, run.stop, axis)
                    ),
                ],
            )
            for run in runs
        ]
    parts = [value for node in nodes for value in node.outputs]
    for part, length in zip(parts, lengths, strict=True):
        part.shape = ir.Shape([*source.shape[:axis], length, *source.shape[axis + 1 :]])
        part.type = source.type
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
    for part in parts:
        part.name = fresh_name(graph, f"{source.name}.run")
    for node in nodes:
        node.name = node.outputs[0].name
    return parts


def _integers(graph: ir.Graph, name: str, numbers: Sequence[int]) -> ir.Value:
    return set_initializer(graph, fresh_name(graph, name), np.array(numbers, np.int64))
