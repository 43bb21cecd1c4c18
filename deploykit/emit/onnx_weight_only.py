"""Weights alone in integers, as an ONNX file: MatMulNBits of com.microsoft for each linear.

    y = MatMulNBits(x, B, scales, bias)    B: [O, blocks, block * bits / 8] uint8, 2^(bits-1) higher

accuracy_level 4 multiplies integers, each block of a row of x rounded to int8 as it comes. Level 0
multiplies floats: at 8 bits it takes fifty times as long as a float MatMul and more, at 4 bits 1.1.
All other nodes are those of the float file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from deploykit.emit.onnx_file import parse_onnx
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array, UInt8Array
from deploykit.spec.names import free_name, tensor_names
from deploykit.spec.network import Network
from deploykit.spec.weight_only import LowBitLinear, WeightOnlyPlan, block_size, products

DOMAIN, OPERATOR = "com.microsoft", "MatMulNBits"
IN_INTEGERS = 4
"""accuracy_level: the least exact type that activations may have, int8."""
FORMAT_KEY = "deploykit.linear:"
"""Metadata key prefix: what a MatMulNBits stands for, see _note."""


def write_weight_only_onnx(network: Network, plan: WeightOnlyPlan) -> bytes:
    """The float network's file, with the plan's integers in its linears.

    Equal plans give equal bytes.
    """
    model = network.model.clone()
    graph = model.graph
    constants = _Constants(graph)
    for node in list(graph):
        layer = plan.layers.get(str(node.name))
        if layer is not None:
            _replace(graph, node, layer, constants)
    model.opset_imports[DOMAIN] = 1
    proto: onnx.ModelProto = ir.to_proto(model)
    for node in network.model.graph:
        if node.name in plan.layers:
            proto.metadata_props.add(key=f"{FORMAT_KEY}{node.name}", value=_note(node, plan))
    return bytes(proto.SerializeToString(deterministic=True))


def _note(node: ir.Node, plan: WeightOnlyPlan) -> str:
    """The operator, and how many inputs share a scale where not all do: "Gemm", "MatMul 32"."""
    block = plan.layers[str(node.name)].block
    return node.op_type if block is None else f"{node.op_type} {block}"


class _Constants:
    """Added to a graph, each once, under names that it does not have."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph, self._taken = graph, tensor_names(graph)
        self._made: dict[str, ir.Value] = {}

    def value(self, wanted: str, values: AnyArray) -> ir.Value:
        """The one that was asked for as `wanted`, which equal weights share."""
        if wanted not in self._made:
            name = free_name(wanted, self._taken)
            self._taken.add(name)
            tensor = ir.tensor(values, name=name)
            made = ir.Value(name=name, const_value=tensor)
            made.shape, made.type = ir.Shape(values.shape), ir.TensorType(tensor.dtype)
            self._graph.register_initializer(made)
            self._made[wanted] = made
        return self._made[wanted]


def _replace(graph: ir.Graph, node: ir.Node, layer: LowBitLinear, constants: _Constants) -> None:
    outputs, inputs = layer.values.shape
    block = layer.block or block_size(inputs)
    blocks = -(-inputs // block)
    packed = _packed(layer.values, layer.bits, block)
    weight = constants.value(f"{layer.weight}.int{layer.bits}", packed)
    scale = constants.value(f"{layer.weight}.scale", _by_block(layer.scale, blocks))
    old = node.inputs[1]
    assert old is not None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    behind: list[ir.Value | None] = [] if bias is None else [None, None, bias]
    made = ir.Node(
        DOMAIN,
        OPERATOR,
        [node.inputs[0], weight, scale, *behind],
        [
            ir.AttrInt64("K", inputs), ir.AttrInt64("N", outputs),
            ir.AttrInt64("bits", layer.bits), ir.AttrInt64("block_size", block),
            ir.AttrInt64("accuracy_level", IN_INTEGERS),
        ],
        outputs=[ir.Value(name=node.outputs[0].name, shape=node.outputs[0].shape,
                          type=node.outputs[0].type)],
        name=node.name,
    )  # fmt: skip
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [made], list(node.outputs), list(made.outputs)
    )
    if not old.uses():
        graph.initializers.pop(str(old.name), None)


def _by_block(scale: Float32Array, blocks: int) -> Float32Array:
    """[O * blocks] of [O, B]: one per output stands for each of its blocks."""
    return np.ascontiguousarray(np.broadcast_to(scale, (len(scale), blocks))).reshape(-1)


def _packed(values: Int8Array, bits: int, block: int) -> UInt8Array:
    """[O, blocks, block * bits / 8]; the last block is filled up with zeros, the first integer of
    a byte lies lowest."""
    half = 1 << (bits - 1)
    outputs, inputs = values.shape
    shifted = (values.astype(np.int16) + half).astype(np.uint8)
    filled = np.pad(shifted, ((0, 0), (0, -inputs % block)), constant_values=half)
    by_block = filled.reshape(outputs, -1, block)
    if bits == 8:
        return by_block
    return np.asarray(by_block[..., 0::2] | by_block[..., 1::2] << 4, np.uint8)


@dataclass(frozen=True)
class ReadLinear:
    """One MatMulNBits: integers [O, I], scales [O, B]."""

    values: Int8Array
    scale: Float32Array
    bits: int


def read_weight_only_onnx(data: bytes) -> tuple[dict[str, ReadLinear], Network]:
    """By layer the linears of a file, and the float network with their products as weights.

    Raises GraphError where the file is none that `write_weight_only_onnx` gives.
    """
    model = parse_onnx(data)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    kinds = {
        entry.key.removeprefix(FORMAT_KEY): entry.value
        for entry in model.metadata_props
        if entry.key.startswith(FORMAT_KEY)
    }
    found: dict[str, ReadLinear] = {}
    for node in model.graph.node:
        if node.op_type != OPERATOR or node.domain != DOMAIN:
            continue
        try:
            kind, _, block = kinds[node.name].partition(" ")
            read = _read(node, constants, int(block) if block else None)
        except (LookupError, ValueError) as error:
            raise GraphError(
                f"The MatMulNBits {node.name!r} of the ONNX file is damaged ({error}); write it "
                "again."
            ) from error
        found[node.name] = read
        _restore(model.graph, node, kind, read)
    if not found:
        raise GraphError("The ONNX file has no MatMulNBits.")
    return found, Network(ir.from_proto(model), {})


def _read(node: onnx.NodeProto, constants: dict[str, AnyArray], block: int | None) -> ReadLinear:
    stated = {one.name: int(one.i) for one in node.attribute}
    outputs, inputs, bits = stated["N"], stated["K"], stated["bits"]
    packed = constants[node.input[1]]
    if bits not in (4, 8) or (len(node.input) > 3 and node.input[3]):
        raise ValueError(f"{bits} bits, or zero points")
    if stated.get("accuracy_level", 0) != IN_INTEGERS:
        raise ValueError(f"accuracy_level {stated.get('accuracy_level', 0)}, not {IN_INTEGERS}")
    if packed.dtype != np.uint8:
        raise ValueError(f"integers in {packed.dtype}")
    codes = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1)
    whole = codes.reshape(outputs, -1).astype(np.int16) - (1 << (bits - 1))
    scales = constants[node.input[2]].reshape(outputs, -1)
    if whole[:, inputs:].any() or (block is None and (scales != scales[:, :1]).any()):
        raise ValueError("numbers behind the last input, or blocks of one output at two scales")
    if block is not None and (block != stated["block_size"] or inputs % block):
        raise ValueError(f"blocks of {stated['block_size']} where {block} are stated")
    kept = scales[:, :1] if block is None else scales
    return ReadLinear(whole[:, :inputs].astype(np.int8), np.ascontiguousarray(kept), bits)


def _restore(graph: onnx.GraphProto, node: onnx.NodeProto, kind: str, read: ReadLinear) -> None:
    """The float operator again, its matrix [I, O] or, in a Gemm, [O, I]."""
    real = products(read.values, read.scale)
    if kind not in {"MatMul", "Gemm"}:
        raise GraphError(f"{node.name!r} stands for {kind}, which is no linear.")
    taken = {one.name for one in graph.initializer} | {one.name for one in graph.input}
    taken.update(name for other in graph.node for name in other.output)
    name = free_name(f"{node.name}.read", taken)
    matrix = real if kind == "Gemm" else np.ascontiguousarray(real.T)
    graph.initializer.append(numpy_helper.from_array(matrix, name))
    bias = [node.input[5]] if len(node.input) > 5 and node.input[5] else []
    made = onnx.helper.make_node(kind, [node.input[0], name, *bias], list(node.output), node.name)
    if kind == "Gemm":
        made.attribute.append(onnx.helper.make_attribute("transB", 1))
    node.CopyFrom(made)
