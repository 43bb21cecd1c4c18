"""What ONNX Runtime makes of an island, read back from the graph that it runs."""

from __future__ import annotations

import onnx

from deploykit.emit.onnx_format import TENSOR_KEY
from deploykit.runtime import ort
from deploykit.spec.operators import Island

EXACT = frozenset({"MatMulIntegerToFloat"})
"""Sums the integers themselves and returns the real product, which a QuantizeLinear rounds."""


def integer_kernels(data: bytes, island: Island) -> set[str]:
    """The operators between an island's inputs and its output that do not compute in float.

    A DequantizeLinear of a constant is one: the runtime has quantized a weight there.
    """
    model = ort.optimized(data)
    names = {
        entry.value: entry.key.removeprefix(TENSOR_KEY)
        for entry in model.metadata_props
        if entry.key.startswith(TENSOR_KEY)
    }
    makers = {output: node for node in model.graph.node for output in node.output}
    held = {constant.name for constant in model.graph.initializer}
    borders = {names.get(name, name) for name in island.inputs}
    end = names.get(island.output, island.output)
    # Where a Transpose went, the island's result went with it: what is left ends at the outputs.
    waiting = [end] if end in makers else [output.name for output in model.graph.output]
    seen: set[str] = set()
    found: set[str] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if _in_integers(node, held):
            found.add(node.op_type)
        waiting.extend(name for name in node.input if name not in borders)
    return found - EXACT


def _in_integers(node: onnx.NodeProto, held: set[str]) -> bool:
    if node.op_type == "DequantizeLinear":
        return node.input[0] in held
    return "Integer" in node.op_type or (
        node.op_type.startswith("Q") and node.op_type != "QuantizeLinear"
    )
