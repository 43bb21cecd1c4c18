"""Logits divided by a temperature, in the constants of the layer that gives them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import constant, label, readers, set_initializer, set_operand
from deploykit.spec.network import Network

TAILS = frozenset(("Softmax", "LogSoftmax"))
MOVES = frozenset(
    ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators that put numbers in other places."""
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm"))
SUMS = frozenset(("Add", "Sub"))


def divided_logits(network: Network, temperature: float) -> Network:
    """The same network with its only output's logits divided by T: W / T, b / T.

    The logits are what a Softmax or LogSoftmax at the end reads, or else the output.

    Raises GraphError where no weighted layer gives them.
    """
    model = network.model.clone()
    graph = model.graph
    (output,) = graph.outputs
    last = output.producer()
    value: ir.Value | None = output
    if last is not None and last.op_type in TAILS:
        value = last.inputs[0]
    changed: set[str] = set()
    _divide(graph, value, temperature, changed)
    divided = network.rewritten(model)
    variance = {
        name: (held / np.float32(temperature) ** 2 if name in changed else held)
        for name, held in network.variance.items()
    }
    return replace(divided, variance=variance)


def _divide(graph: ir.Graph, value: ir.Value | None, temperature: float, changed: set[str]) -> None:
    node = None if value is None else value.producer()
    if value is None or node is None:
        raise GraphError("--temperature: the logits are no layer's output; leave it out")
    if len(readers(value)) + value.is_graph_output() > 1:
        raise GraphError(
            f"--temperature: {value.name!r}, the logits, is read inside of the network too; leave "
            "it out"
        )
    if node.op_type in MOVES:
        _divide(graph, node.inputs[0], temperature, changed)
        return
    held = [index for index, one in enumerate(node.inputs) if constant(one) is not None]
    weighted = node.op_type in WEIGHTED and 1 in held and 0 not in held
    if node.op_type in SUMS and len(held) == 1:
        _divide(graph, node.inputs[1 - held[0]], temperature, changed)
    elif not weighted and (node.op_type != "MatMul" or len(held) != 1):
        raise GraphError(
            f"--temperature: the logits come from {node.op_type} {label(node)!r}, which has no "
            "weights to divide; end the network in a linear layer or convolution"
        )
    for place in held:
        _divide_constant(graph, node, place, temperature, changed)


def _divide_constant(
    graph: ir.Graph, node: ir.Node, place: int, temperature: float, changed: set[str]
) -> None:
    operand = node.inputs[place]
    array = constant(operand)
    assert operand is not None
    assert array is not None
    scaled = (array.astype(np.float64) / temperature).astype(array.dtype)
    if len(readers(operand)) > 1 or str(operand.name) not in graph.initializers:
        set_operand(graph, node, place, scaled)
        return
    set_initializer(graph, str(operand.name), scaled)
    changed.add(str(operand.name))
