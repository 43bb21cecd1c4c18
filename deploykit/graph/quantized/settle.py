"""Which tensor of the float graph lies on which grid: the quantized one, or a Clip of it.

A grid that starts at zero is a Relu, and one of 4 bits saturates before int8 does: such a bound is
a Clip of the float graph, or that would not be what the integers compute. Where the tensor keeps
the bound by itself there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import bypass, constant, fresh_name, set_initializer, take_over
from deploykit.graph.quantized.twins import Pair
from deploykit.spec.given import ActivationGrid

NONNEGATIVE = frozenset(("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax"))
KEEPING = frozenset((
    "Add", "AveragePool", "Concat", "DepthToSpace", "Dropout", "Flatten", "Gather",
    "GlobalAveragePool", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Mul", "ReduceMax",
    "ReduceMean", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Operators that give nothing negative where they read nothing negative."""


def settle_pairs(graph: ir.Graph, pairs: Sequence[Pair]) -> dict[str, ActivationGrid]:
    """The grids by tensor. Every pair's value is an Identity of its source when this begins.

    A tensor with several grids, or one that has a grid already, is bounded for each.
    """
    counted = Counter(pair.source for pair in pairs)
    taken = {pair.value for pair in pairs}
    from_zero = {pair.value for pair in pairs if pair.grid.ends[0] == 0.0}
    bounded = {pair.value for pair in pairs if _needs_bound(pair, from_zero)}
    grids: dict[ir.Value, ActivationGrid] = {}
    for pair in pairs:
        node = pair.value.producer()
        assert node is not None
        alone = counted[pair.source] == 1 and pair.source not in taken
        if alone and pair.value not in bounded:
            tensor = _read_now(node)
            bypass(graph, node, tensor)
        else:
            tensor = _clip(graph, node, pair)
        grids[tensor] = pair.grid
        name_outputs(graph, tensor)
    return {str(value.name): grid for value, grid in grids.items()}


def _read_now(node: ir.Node) -> ir.Value:
    """What an Identity reads: a pair behind a settled one no longer reads its `source`."""
    (value,) = node.inputs
    assert value is not None
    return value


def _needs_bound(pair: Pair, from_zero: Collection[ir.Value]) -> bool:
    """An input is what the app gives: only bits that do not fill int8 bound it."""
    if not pair.grid.fills:
        return True
    low, _ = pair.grid.ends
    return low == 0.0 and not pair.source.is_graph_input() and _may_be_negative(pair, from_zero)


def _may_be_negative(pair: Pair, from_zero: Collection[ir.Value]) -> bool:
    waiting, seen = [pair.source], {pair.source}
    while waiting:
        value = waiting.pop()
        node, held = value.producer(), constant(value)
        if value in from_zero or (held is not None and not (held < 0).any()):
            continue
        if node is None or not (node.op_type in NONNEGATIVE | KEEPING or _clipped(node)):
            return True
        if node.op_type in KEEPING:
            # Of what has parameters beside (a shape, axes), these are no numbers of the tensor.
            count = None if node.op_type in {"Add", "Concat", "Max", "Min", "Mul"} else 1
            read = [one for one in node.inputs[:count] if one is not None and one not in seen]
            seen.update(read)
            waiting.extend(read)
    return False


def _clipped(node: ir.Node) -> bool:
    low = constant(node.inputs[1]) if node.op_type == "Clip" and len(node.inputs) > 1 else None
    return low is not None and float(low.reshape(())) >= 0.0


def _clip(graph: ir.Graph, node: ir.Node, pair: Pair) -> ir.Value:
    """Bound a tensor at the ends of its grid, in place of the pair's Identity."""
    held = [
        set_initializer(
            graph, fresh_name(graph, f"{pair.value.name}.{end}"), np.asarray(bound, np.float32)
        )
        for end, bound in zip(("low", "high"), pair.grid.ends, strict=True)
    ]
    clip = ir.node("Clip", [_read_now(node), *held])
    graph.insert_before(node, clip)
    take_over(graph, pair.value, clip.outputs[0])
    graph.remove(node, safe=True)
    return clip.outputs[0]


def name_outputs(graph: ir.Graph, tensor: ir.Value) -> None:
    """Let a tensor have the name of the graph's output that it is."""
    for node in [use.node for use in tensor.uses()]:
        own = tensor.producer() is not None and not tensor.is_graph_output()
        if own and node.op_type == "Identity" and node.outputs[0].is_graph_output():
            bypass(graph, node, tensor)
