"""Weights alone in integers, as a .tflite file: FULLY_CONNECTED of float32 with INT4 or INT8.

XNNPACK rounds each row of the input to int8 as it comes, and multiplies integers; so does LiteRT's
own kernel. All other operators are those of the float file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploykit.emit.tflite_file import parse_tflite
from deploykit.emit.tflite_flatbuffer import pack_graph
from deploykit.emit.tflite_float import float_file
from deploykit.emit.tflite_graph import (
    BlockScales,
    TfliteGraph,
    TfliteOperator,
    TfliteQuantization,
)
from deploykit.emit.tflite_parts import FileTensor, TfliteFile
from deploykit.errors import GraphError
from deploykit.spec.arrays import Float32Array, Int8Array
from deploykit.spec.carriers import Carrier
from deploykit.spec.linears import with_weights
from deploykit.spec.network import Network
from deploykit.spec.weight_only import LowBitLinear, WeightOnlyPlan, by_input

CODE = "FULLY_CONNECTED"
FORMAT = "tflite"
SCALES = "/scales"
WEIGHT = "/weight"
"""Behind the node's name: what the float writer calls a linear's weight."""


@dataclass(frozen=True)
class FileWeight:
    """A linear's weight as a file holds it: [O, I] with its scales [O, B]."""

    values: Int8Array
    scale: Float32Array
    carrier: Carrier


def write_weight_only_tflite(network: Network, plan: WeightOnlyPlan) -> bytes:
    """The float network's file, with the plan's integers in its linears.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    held = {name: layer.dequantized for name, layer in plan.layers.items()}
    file = float_file(with_weights(network, held))
    graph = file.graph
    places = {f"{name}{WEIGHT}": layer for name, layer in plan.layers.items()}
    factors = [op.inputs[1] for op in graph.operators if op.code.startswith(CODE)]
    stored = {
        index: places[graph.tensors[index].name]
        for index in dict.fromkeys(factors)
        if graph.tensors[index].values is not None and graph.tensors[index].name in places
    }
    missing = places.keys() - {graph.tensors[index].name for index in stored}
    if missing:
        raise GraphError(f"No FULLY_CONNECTED of the file computes {sorted(missing)[0]!r}.")
    arrays: dict[tuple[str, bytes], Int8Array] = {}
    for index, layer in stored.items():
        _store(graph, index, layer, arrays)
    graph.operators = [_dynamic(operator, stored) for operator in graph.operators]
    return pack_graph(graph, file.inputs, file.outputs)


def _store(
    graph: TfliteGraph,
    index: int,
    layer: LowBitLinear,
    arrays: dict[tuple[str, bytes], Int8Array],
) -> None:
    """The integers in place of their float products, which divide exactly.

    arrays: so far, by weight and content: layers of one weight share theirs in the file.

    The float writer may have put columns in another order: that of H, W, C.
    """
    tensor = graph.tensors[index]
    assert tensor.values is not None
    scale = by_input(layer.scale, layer.values.shape[1])
    integers = np.rint(tensor.values / scale).astype(np.int8)
    blocks = quantization = None
    if layer.block is None:
        quantization = TfliteQuantization(layer.scale[:, 0], 0)
    else:
        if not np.array_equal(integers, layer.values):
            raise GraphError(
                f"{layer.name!r}: the file has its columns in another order, which breaks blocks."
            )
        held = graph.constant(f"{tensor.name}{SCALES}", layer.scale.astype(np.float16))
        blocks = BlockScales(held, layer.block)
    graph.tensors[index] = replace(
        tensor,
        dtype=integers.dtype,
        values=arrays.setdefault((layer.weight, integers.tobytes()), integers),
        quantization=quantization,
        blocks=blocks,
        carrier=layer.carrier(FORMAT),
    )


def _dynamic(operator: TfliteOperator, stored: Mapping[int, LowBitLinear]) -> TfliteOperator:
    if not operator.code.startswith(CODE) or operator.inputs[1] not in stored:
        return operator
    form = "dynamic" if stored[operator.inputs[1]].block is None else "blockwise"
    return replace(operator, code=f"{CODE}/{form}")


def read_weight_only_tflite(data: bytes) -> dict[str, FileWeight]:
    """By layer, every linear's integers; a file's columns may be in the order of H, W, C.

    Raises GraphError where the file is none that `write_weight_only_tflite` gives.
    """
    file = parse_tflite(data)
    names = {one.index: one.name.removesuffix(WEIGHT) for one in file.tensors}
    return {names[index]: one for index, one in _integer_weights(file).items()}


def integer_weights(data: bytes) -> dict[int, FileWeight]:
    """The same by index of the tensor."""
    return _integer_weights(parse_tflite(data))


def _integer_weights(file: TfliteFile) -> dict[int, FileWeight]:
    found = {}
    for operator in file.operators:
        weight = operator.inputs[1] if operator.code == CODE else None
        if weight is None or operator.output.dtype != np.float32:
            continue
        if weight.dtype == np.int8 and weight.values is not None:
            found[weight.index] = _weight(weight, file)
    if not found:
        raise GraphError("The .tflite file has no FULLY_CONNECTED with integer weights.")
    return found


def _weight(tensor: FileTensor, file: TfliteFile) -> FileWeight:
    assert tensor.values is not None
    if tensor.blocks is not None:
        return FileWeight(tensor.values, _block_scales(tensor, file), tensor.carrier)
    per_channel = tensor.scale.shape == tensor.shape[:1] and tensor.dimension == 0
    if len(tensor.shape) != 2 or not per_channel or tensor.zero_point.any():
        raise GraphError(
            f"The weight {tensor.name!r} has no scale for each output, or zero points other than "
            "0; write the file again."
        )
    return FileWeight(tensor.values.astype(np.int8), tensor.scale[:, None], tensor.carrier)


def _block_scales(tensor: FileTensor, file: TfliteFile) -> Float32Array:
    """[O, B], from the tensor that the weight names."""
    assert tensor.blocks is not None
    place, size = tensor.blocks
    values = file.tensors[place].values if 0 <= place < len(file.tensors) else None
    outputs, inputs = tensor.shape
    if values is None or size < 1 or inputs % size or values.size != outputs * (inputs // size):
        raise GraphError(
            f"The weight {tensor.name!r} has no scale for each block of {size} inputs; write the "
            "file again."
        )
    return values.astype(np.float32).reshape(outputs, -1)
