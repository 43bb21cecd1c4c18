"""Which ONNX models are float networks that removal and quantization can start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from deploykit.errors import GraphError
from deploykit.graph.onnx_walk import graphs, nodes, tensors

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE})

NARROW = {
    number: name.lower()
    for name, number in onnx.TensorProto.DataType.items()
    if name.startswith(
        ("FLOAT16", "BFLOAT16", "FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2")
    )
}
"""Element types of fewer bits than float32, by number."""

STORAGE = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
"""Of these, the ones in which a float network's weights may be stored, behind a Cast."""

QUANTIZED = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulBnb4", "MatMulInteger",
    "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QEmbedLayerNormalization", "QGemm",
    "QMoE", "QOrderedMatMul", "QuantizeLinear",
})  # fmt: skip
"""Operators of quantized models; every name that begins with QLinear is one too."""


INTEGERS = frozenset(number for number, name in NARROW.items() if "float" not in name)
"""Of these, the ones in which a quantized network stores its weights."""

Admission = Callable[[Path, onnx.ModelProto], None]


def is_quantized(node: onnx.NodeProto) -> bool:
    """Whether an operator computes with integers, or makes or reads them."""
    return node.op_type in QUANTIZED or node.op_type.startswith("QLinear")


def check_float(path: Path, model: onnx.ModelProto) -> None:
    """Raise GraphError where the model is quantized, of half precision, or stores sparse tensors.

    Weights of half precision that only a Cast reads are storage, and pass.
    """
    for node in nodes(model):
        if is_quantized(node):
            raise GraphError(
                f"{path} is quantized (operator {node.op_type} {_name(node)!r}), and channels are "
                "removed before weights are rounded; give the float model that it was made from"
            )
    _check(path, model, STORAGE)


def check_float_or_quantized(path: Path, model: onnx.ModelProto) -> None:
    """Raise GraphError where the model is of half precision, or stores sparse tensors.

    Weights of 4 and 2 bits pass where a Cast or a DequantizeLinear reads them.
    """
    if any(is_quantized(node) for node in nodes(model)):
        _check(path, model, STORAGE | INTEGERS)
    else:
        _check(path, model, STORAGE)


def _check(path: Path, model: onnx.ModelProto, storage: frozenset[int]) -> None:
    """storage: element types in which weights may be stored."""
    for node in nodes(model):
        narrow = _narrow_cast(node)
        if narrow is not None:
            raise GraphError(f"{path}: {node.op_type} {_name(node)!r} makes {narrow}; {_ADVICE}")
    for graph in graphs(model):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise GraphError(
                f"{path} stores {name!r} as a sparse tensor; export it with dense weights"
            )
        for port in (*graph.input, *graph.output):
            if port.type.tensor_type.elem_type in NARROW:
                kind = NARROW[port.type.tensor_type.elem_type]
                raise GraphError(f"{path}: {port.name!r} is {kind}; {_ADVICE}")
        for name, kind in _narrow_weights(graph, storage):
            raise GraphError(f"{path}: the weight {name!r} is {kind}; {_ADVICE}")
    for port in (*model.graph.input, *model.graph.output):
        if not port.type.HasField("tensor_type"):
            kind = port.type.WhichOneof("value") or "value of no stated type"
            raise GraphError(
                f"{path}: {port.name!r} is a {kind}; only tensors may enter and leave the network"
            )
    if not any(
        tensor.data_type in FLOATS or tensor.data_type in NARROW for tensor in tensors(model)
    ):
        raise GraphError(f"{path} holds no float weights; give a float model")


_ADVICE = "export the network in float32"


OF_INTEGERS = frozenset(("Clip", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"))
"""Operators that may stand at an integer weight of a quantized network."""


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def _narrow_cast(node: onnx.NodeProto) -> str | None:
    """The narrow element type that a Cast or a constant's maker turns values into."""
    if node.op_type != "Cast":
        return None
    targets = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    return next((NARROW[target] for target in targets if target in NARROW), None)


def _narrow_weights(graph: onnx.GraphProto, storage: frozenset[int]) -> Iterator[tuple[str, str]]:
    """(name, element type) of stored tensors that an operator reads which cannot."""
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                stored[node.output[0]] = attribute.t.data_type
    narrow = {name: NARROW[kind] for name, kind in stored.items() if kind in NARROW}
    for node in graph.node:
        for name in node.input:
            if name not in narrow:
                continue
            widens = node.op_type == "Cast" or (
                stored[name] in INTEGERS and node.op_type in OF_INTEGERS
            )
            if not widens or stored[name] not in storage:
                yield name, narrow[name]
