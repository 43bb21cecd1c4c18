"""Operators on integers, spelled as DequantizeLinear, the float operator, QuantizeLinear.

    QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)
        = QuantizeLinear(Conv(DequantizeLinear(x, sx, zx), DequantizeLinear(w, sw, zw), sx*sw*b),
                         sy, zy)

Source: ONNX operator specification (QLinearConv, QLinearMatMul); onnxruntime ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import attribute_float, attribute_int, fresh_name, label, set_initializer
from deploykit.graph.quantized.constants import Constants

Read = Sequence[ir.Value | None]


@dataclass(frozen=True)
class Spelling:
    """Of one operator. operator: in float. operands: where inputs stand, each with its parameters.

    into: where the output's scale stands; its zero point follows. bias: where int32 terms stand.
    """

    operator: str
    operands: tuple[int, ...]
    into: int
    bias: int | None = None


SPELLINGS: Mapping[str, Spelling] = {
    "QLinearConv": Spelling("Conv", (0, 3), 6, bias=8),
    "QLinearMatMul": Spelling("MatMul", (0, 3), 6),
    "QGemm": Spelling("Gemm", (0, 3), 7, bias=6),
    "QLinearAdd": Spelling("Add", (0, 3), 6),
    "QLinearMul": Spelling("Mul", (0, 3), 6),
    "QLinearGlobalAveragePool": Spelling("GlobalAveragePool", (0,), 3),
    "QLinearAveragePool": Spelling("AveragePool", (0,), 3),
    "QLinearSigmoid": Spelling("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": Spelling("LeakyRelu", (0,), 3),
    "QLinearSoftmax": Spelling("Softmax", (0,), 3),
}
CONCAT = "QLinearConcat"
"""Output scale and zero point first, then each input with its own."""
DROPPED = frozenset(("channels_last", "opset"))
"""Attributes that the float operators do not have."""


def spell_out(graph: ir.Graph, constants: Constants) -> None:
    """Rewrite every operator of SPELLINGS in place."""
    for node in list(graph):
        if node.op_type == CONCAT:
            count = (len(node.inputs) - 2) // 3
            spelling = Spelling("Concat", tuple(2 + 3 * place for place in range(count)), 0)
        elif node.op_type in SPELLINGS:
            spelling = SPELLINGS[node.op_type]
        else:
            continue
        if attribute_int(node, "channels_last", 0):
            raise GraphError(
                f"{node.op_type} {label(node)!r} has its channels last, a form that ONNX Runtime "
                "makes when it optimizes; give the file as it was before that"
            )
        _spell(graph, node, spelling, constants)


def _spell(graph: ir.Graph, node: ir.Node, spelling: Spelling, constants: Constants) -> None:
    """Put the float operator between DequantizeLinears and a QuantizeLinear in a node's place."""
    made: list[ir.Node] = []

    def add(op_type: str, read: Read, name: str, attributes: Mapping[str, ir.Attr]) -> ir.Value:
        new = ir.Node("", op_type, list(read), list(attributes.values()), num_outputs=1)
        new.outputs[0].name = fresh_name(graph, name)
        graph.insert_before(node, new)
        made.append(new)
        return new.outputs[0]

    def real(place: int, axis: int) -> ir.Value:
        read = [node.inputs[place + part] for part in range(3)]
        name = f"{node.outputs[0].name}.{place}"
        return add("DequantizeLinear", read, name, {"axis": ir.AttrInt64("axis", axis)})

    weight_axis = _weight_axis(node, spelling)
    operands = [
        real(place, weight_axis if index else 1) for index, place in enumerate(spelling.operands)
    ]
    bias = None
    if spelling.bias is not None and len(node.inputs) > spelling.bias:
        bias = node.inputs[spelling.bias]
    if bias is not None:
        operands.append(_bias(graph, node, bias, constants, add))
    attributes = {name: one for name, one in node.attributes.items() if name not in DROPPED}
    result = add(spelling.operator, operands, f"{node.outputs[0].name}.real", attributes)
    read = [result, node.inputs[spelling.into], node.inputs[spelling.into + 1]]
    name = str(node.outputs[0].name)
    integers = add("QuantizeLinear", read, f"{name}.integers", {})
    ir.convenience.replace_all_uses_with(node.outputs[0], integers, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _weight_axis(node: ir.Node, spelling: Spelling) -> int:
    """Along which scales of a weight lie, one for each output."""
    match spelling.operator:
        case "Conv":
            return 0
        case "Gemm":
            return 0 if attribute_int(node, "transB", 0) else 1
        case _:
            return -1


def _bias(
    graph: ir.Graph,
    node: ir.Node,
    bias: ir.Value,
    constants: Constants,
    add: Callable[[str, Read, str, Mapping[str, ir.Attr]], ir.Value],
) -> ir.Value:
    """int32 terms in steps of input scale * weight scale; QGemm's alpha is in these steps too."""
    scales = [constants.value(node.inputs[place]) for place in (1, 4)]
    if scales[0] is None or scales[1] is None:
        raise GraphError(
            f"{node.op_type} {label(node)!r} computes its scales from each input; quantize "
            "statically, with calibration data"
        )
    alpha = np.float32(attribute_float(node, "alpha", 1.0))
    steps = np.asarray(scales[0] * scales[1] * alpha, np.float32)
    name = str(node.outputs[0].name)
    held = set_initializer(graph, fresh_name(graph, f"{name}.bias.scale"), steps)
    return add("DequantizeLinear", [bias, held], f"{name}.bias", {"axis": ir.AttrInt64("axis", 0)})
