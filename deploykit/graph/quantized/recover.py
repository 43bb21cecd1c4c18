"""take_grids: a graph that states its integers as a float graph, and the grids beside it.

QuantizeLinear -> [Clip] -> DequantizeLinear     the tensor itself, on a grid
integers -> [Cast, Clip, Reshape] -> DequantizeLinear     scale * (q - zero point)
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from deploykit.errors import GraphError
from deploykit.graph.edit import drop_unused_initializers, label, take_over
from deploykit.graph.onnx_admission import is_quantized
from deploykit.graph.quantized.constants import Constants
from deploykit.graph.quantized.operands import constant_grids
from deploykit.graph.quantized.operator_form import spell_out
from deploykit.graph.quantized.parameters import parameters_of
from deploykit.graph.quantized.settle import name_outputs, settle_pairs
from deploykit.graph.quantized.twins import MOVING, Twins
from deploykit.graph.quantized.weights import weight_grids
from deploykit.spec.carriers import BITS_KEY
from deploykit.spec.given import NOTHING_GIVEN, Given

DYNAMIC = frozenset((
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
    "MatMulInteger", "MatMulIntegerToFloat",
))  # fmt: skip
COMPARING = frozenset(("ArgMax", "ArgMin"))
"""Operators that give the same of integers as of the real numbers that they stand for."""


def take_grids(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Given]:
    """(the float model, its grids); a model without integers is returned as it is.

    Grids of weights are by initializer of the float model, of activations by tensor.

    Raises GraphError where the integers are of a kind that no bundle can hold, and says what to do.
    """
    if not any(is_quantized(node) for node in model.graph.node):
        return model, NOTHING_GIVEN
    for node in model.graph.node:
        if node.op_type in DYNAMIC:
            raise GraphError(
                f"operator {node.op_type} {node.name or node.output[0]!r} quantizes each input "
                "anew (dynamic quantization), and an integer file has to state its scales; "
                "quantize statically, with calibration data, or give the float model"
            )
    found = ir.from_proto(model)
    graph, constants = found.graph, Constants()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(found)
    spell_out(graph, constants)
    readers = {value: len(value.uses()) for node in graph for value in node.outputs}
    twins = Twins(graph, constants, readers)
    for node in list(graph):
        if node.op_type == "DequantizeLinear":
            source = node.inputs[0]
            assert source is not None
            real = twins.real(source, parameters_of(node, constants))
            _replace(graph, node, real)
        elif node.op_type in COMPARING:
            _compare_real(node, twins)
    _drop_unread(graph)
    _subtract(graph)
    activations = settle_pairs(graph, twins.pairs)
    for value in twins.rows:
        name_outputs(graph, value)
    activations |= {str(value.name): grid for value, grid in twins.rows.items()}
    drop_unused_initializers(graph)
    bits = {
        entry.key.removeprefix(BITS_KEY): int(entry.value)
        for entry in model.metadata_props
        if entry.key.startswith(BITS_KEY) and entry.value.isdecimal()
    }
    weights, refused = weight_grids(graph, twins.stored, bits)
    _check_float(graph)
    done = ir.to_proto(found)
    del done.graph.value_info[:]
    return done, Given(weights, activations, tuple(refused), constant_grids(twins.stored))


def _compare_real(node: ir.Node, twins: Twins) -> None:
    """Which integer is largest, and which real number: the same."""
    value = source = node.inputs[0]
    maker = None if source is None else source.producer()
    while maker is not None and maker.op_type in MOVING and maker.op_type != "Gather":
        source = maker.inputs[0]
        maker = None if source is None else source.producer()
    if value is not None and maker is not None and maker.op_type == "QuantizeLinear":
        node.replace_input_with(0, twins.real(value, parameters_of(maker, twins.constants)))


def _replace(graph: ir.Graph, node: ir.Node, real: ir.Value) -> None:
    """Let what a DequantizeLinear gave be `real`; an output of the graph keeps its name."""
    output = node.outputs[0]
    if output.is_graph_output():
        same = ir.node("Identity", [real])
        graph.insert_before(node, same)
        take_over(graph, output, same.outputs[0])
    else:
        ir.convenience.replace_all_uses_with(output, real)
    graph.remove(node, safe=True)


def _subtract(graph: ir.Graph) -> None:
    """x + (-y) as x - y, which has an integer form."""
    for node in list(graph):
        right = node.inputs[1] if node.op_type == "Add" else None
        turned = None if right is None else right.producer()
        if turned is not None and turned.op_type == "Neg" and len(turned.outputs[0].uses()) == 1:
            node.op_type = "Sub"
            node.replace_input_with(1, turned.inputs[0])
            graph.remove(turned, safe=True)


def _drop_unread(graph: ir.Graph) -> None:
    """Remove the nodes that only integers went through."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)


def _check_float(graph: ir.Graph) -> None:
    """Raise GraphError where integers are left that no DequantizeLinear reads."""
    for node in graph:
        if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
            readers = [use.node.op_type for use in node.outputs[0].uses()] or ["the app"]
            raise GraphError(
                f"{node.op_type} {label(node)!r} makes integers that {readers[0]} reads as they "
                "are; give the file with QuantizeLinear and DequantizeLinear (QDQ) around float "
                "operators, and with float outputs"
            )
        if node.op_type in {"MatMulNBits", "GatherBlockQuantized", "QAttention", "QMoE"}:
            raise GraphError(
                f"{node.op_type} {label(node)!r} holds its weights in a form of its own; give the "
                "file with QuantizeLinear and DequantizeLinear (QDQ), or the float model"
            )
