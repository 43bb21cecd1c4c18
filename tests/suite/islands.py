"""What ONNX Runtime makes of islands, read back from the graph that it runs."""

from __future__ import annotations

import onnx

from deploykit.emit.onnx_format import TENSOR_KEY
from deploykit.runtime import ort
from deploykit.spec.operators import Island
from deploykit.spec.quantized import QuantizedNetwork

EXACT = frozenset({"MatMulIntegerToFloat"})
"""Sums the integers themselves and returns the real product, which a QuantizeLinear rounds."""


def integer_kernels(data: bytes, network: QuantizedNetwork) -> set[str]:
    """The operators of a file that compute in integers and none of whose results a network's
    operator other than an island has: they stand in an island's place.

    A DequantizeLinear of a constant is one: the runtime has quantized a weight there.
    """
    model = ort.optimized(data)
    called = {
        entry.value: entry.key.removeprefix(TENSOR_KEY)
        for entry in model.metadata_props
        if entry.key.startswith(TENSOR_KEY)
    }
    others = {
        called.get(operator.output, operator.output)
        for operator in network.operators
        if not isinstance(operator, Island)
    }
    held = {constant.name for constant in model.graph.initializer}
    found = {
        node.op_type
        for node in model.graph.node
        if _in_integers(node, held) and others.isdisjoint(node.output)
    }
    return found - EXACT


def _in_integers(node: onnx.NodeProto, held: set[str]) -> bool:
    if node.op_type == "DequantizeLinear":
        return node.input[0] in held
    return "Integer" in node.op_type or (
        node.op_type.startswith("Q") and node.op_type != "QuantizeLinear"
    )
