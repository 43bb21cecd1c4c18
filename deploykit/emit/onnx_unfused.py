"""Islands that ONNX Runtime would compute in integers, and what keeps it from doing so.

It takes an operator between a DequantizeLinear and a QuantizeLinear as a request for its integer
kernel, which rounds otherwise than the operator on real values, and quantizes the float weight of
a convolution there on its own. A Sum of one input stands between them: the same values by
definition, which it neither removes nor moves a DequantizeLinear past.

Source: ONNX Runtime 1.32, optimizer/qdq_transformer; tests/suite/test_islands.py measures every row
of the tables anew.
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.spec.bodies import known_body
from deploykit.spec.operators import Island

FUSED = frozenset(
    (
        "Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool",
        "LeakyRelu", "MatMul", "Mul", "Sigmoid", "Softmax", "Where",
    )
)  # fmt: skip
"""Operators of islands that have an integer kernel there, or a weight that it quantizes."""

SEEN_THROUGH = frozenset(
    (
        "BatchNormalization", "Clip", "Expand", "MaxPool", "Pad", "Relu", "Reshape", "Slice",
        "Squeeze", "Transpose", "Unsqueeze",
    )
)  # fmt: skip
"""Operators past which it moves those two, or which become part of the one beside them."""

ABSORBED = frozenset(("Add", "Mul"))
"""Operators that become part of the one before them where they take a constant."""


def unfused(operator: Island, reals: list[str], graph: OnnxGraph) -> list[str]:
    """The names of an island's real inputs, behind a Sum each where it would be fused.

    reals: the results of its DequantizeLinears.
    """
    if not _would_fuse(operator):
        return reals
    found = []
    for tensor, real in zip(operator.inputs, reals, strict=True):
        output = graph.fresh(f"{tensor}.float.{operator.name}")
        found.append(graph.helper("Sum", [real], output, f"{operator.name}.float.{tensor}"))
    return found


def _would_fuse(operator: Island) -> bool:
    """Whether one operator with an integer kernel is all that an island computes.

    With a second one, none has both a DequantizeLinear before it and a QuantizeLinear behind it.
    """
    nodes = known_body(operator).model.graph
    computing = [node.op_type for node in nodes if not _disappears(node)]
    return len(computing) == 1 and computing[0] in FUSED


def _disappears(node: ir.Node) -> bool:
    if node.outputs[0].dtype == ir.DataType.BOOL:
        return True  # a condition has no scale, and its Where is fused whatever computes it
    held = any(value is not None and value.const_value is not None for value in node.inputs)
    return node.op_type in SEEN_THROUGH or (node.op_type in ABSORBED and held)
