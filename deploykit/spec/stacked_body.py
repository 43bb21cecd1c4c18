"""The float graph of an island or a rearrangement for several samples at a time."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.spec.network import Network
from deploykit.spec.stack import Stack
from deploykit.spec.stack_rules import stack_node


def stacked_body(body: Network, samples: int) -> Network:
    """A body that takes and gives [N * s0, ...] where `body` takes and gives [s0, ...].

    N is whatever it is given; `samples` is the N of the shapes that its tensors state.

    Raises UnsupportedOperatorError naming a node that has no such form, and what to do.
    """
    graph = body.model.graph
    stack = Stack(samples)
    inputs = [stack.define(value) for value in graph.inputs]
    for node in graph:
        stack_node(node, stack)
    outputs = [held for value in graph.outputs if (held := stack.held(value)) is not None]
    made = ir.Graph(
        inputs, outputs, nodes=stack.nodes, initializers=list(stack.constants.values()),
        opset_imports=graph.opset_imports, name=graph.name,
    )  # fmt: skip
    return Network(ir.Model(made, ir_version=body.model.ir_version), {})
