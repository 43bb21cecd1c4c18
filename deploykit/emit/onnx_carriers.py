"""Weights of fewer than 8 bits in an ONNX file, behind nodes that make int8 of them.

    int4, int2       initializer of 4 or 2 bits -> Cast to int8
    table4, table2   uint8 initializer -> Cast to int32 -> Gather of the bytes' table -> Reshape

ONNX Runtime computes these once, when it loads the file, and then fuses what follows as it does
with an int8 initializer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto

from deploykit.emit.onnx_parts import Parts
from deploykit.emit.packing import byte_table, pack
from deploykit.errors import GraphError
from deploykit.spec.arrays import Int8Array
from deploykit.spec.carriers import Carrier
from deploykit.spec.operators import IntegerWeight

if TYPE_CHECKING:
    from deploykit.emit.onnx_graph import OnnxGraph

STORED = {Carrier.INT4: int(TensorProto.INT4), Carrier.INT2: int(TensorProto.INT2)}

OPSETS = {STORED[Carrier.INT4]: 21, STORED[Carrier.INT2]: 25}
"""The first whose Cast knows the element type."""


def write_carried(weight: IntegerWeight, graph: OnnxGraph) -> tuple[str, str]:
    """The weight's initializer, and the int8 tensor of its shape that comes of it."""
    carrier = weight.carriers.onnx
    if carrier is Carrier.INT8:
        name = graph.initializer(weight.name, weight.values)
        return name, name
    packed = pack(weight.values, carrier)
    to_int8 = {"to": TensorProto.INT8}
    if carrier in STORED:
        name = graph.packed_initializer(
            weight.name, STORED[carrier], weight.values.shape, packed.tobytes()
        )
        return name, graph.helper(
            "Cast", [name], graph.fresh(f"{name}.int8"), f"{name}.cast", to_int8
        )
    name = graph.initializer(weight.name, packed)
    table = graph.shared_initializer(f"bytes.{carrier.value}", byte_table(carrier))
    shape = graph.shared_initializer(f"{name}.shape", np.array(weight.values.shape, np.int64))
    places, rows, values = (graph.fresh(f"{name}.{part}") for part in ("places", "rows", "int8"))
    graph.helper("Cast", [name], places, f"{name}.cast", {"to": TensorProto.INT32})
    graph.helper("Gather", [table, places], rows, f"{name}.take", {"axis": 0})
    return name, graph.helper("Reshape", [rows, shape], values, f"{name}.shape")


def opset_of_weights(initializers: Iterable[TensorProto]) -> int:
    """The first opset that knows the element types of all of them; 0: they ask for none."""
    return max((OPSETS.get(one.data_type, 0) for one in initializers), default=0)


def carrying_nodes(parts: Parts) -> frozenset[str]:
    """Outputs of the nodes that make int8 weights, which stand for no operator of the network."""
    found: set[str] = set()
    for node in parts.graph.node:
        if node.op_type == "DequantizeLinear":
            found.update(output for one in _chain(parts, node.input[0]) for output in one.output)
    return frozenset(found)


def read_carried(parts: Parts, reader: NodeProto) -> tuple[str, Int8Array, Carrier]:
    """Initializer, values and carrier of the weight that a DequantizeLinear reads."""
    name = str(reader.input[0])
    chain = _chain(parts, name)
    if not chain:
        return name, _int8(parts, name, reader), Carrier.INT8
    stored = str(chain[0].input[0])
    if len(chain) == 1:
        kind = parts.constant_type(stored)
        found = [carrier for carrier, one in STORED.items() if one == kind]
        if not found:
            raise GraphError(
                f"{chain[0].op_type} {chain[0].name!r}: the weight {stored!r} has the element type "
                f"{TensorProto.DataType.Name(kind)}; it must be INT4, INT2 or INT8."
            )
        return stored, parts.constant(stored, reader).astype(np.int8), found[0]
    _, gather, reshape = chain
    packed, table = parts.constant(stored, gather), parts.constant(gather.input[0], gather)
    shape = [int(length) for length in parts.constant(reshape.input[1], reshape)]
    if (
        packed.dtype != np.uint8
        or table.dtype != np.int8
        or table.shape not in ((256, 2), (256, 4))
    ):
        raise GraphError(
            f"Gather {gather.name!r}: the weight {stored!r} must be uint8, and its table int8 of "
            "256 rows of 2 or 4."
        )
    carrier = Carrier.TABLE4 if table.shape[1] == Carrier.TABLE4.per_byte else Carrier.TABLE2
    return stored, table[packed].reshape(shape), carrier


def _int8(parts: Parts, name: str, reader: NodeProto) -> Int8Array:
    values = parts.constant(name, reader)
    if values.dtype != np.int8:
        raise GraphError(
            f"{reader.op_type} {reader.name!r}: the weight {name!r} is {values.dtype}; it must be "
            "int8, or INT4 or INT2 behind a Cast to int8."
        )
    return values


def _chain(parts: Parts, name: str) -> list[NodeProto]:
    """The nodes between an initializer and an int8 weight, in running order; else none."""
    last = parts.maker(name)
    if last is None or not last.input:
        return []
    if last.op_type == "Cast" and parts.is_constant(last.input[0]):
        return [last]
    gather = parts.maker(last.input[0]) if last.op_type == "Reshape" else None
    if gather is None or gather.op_type != "Gather" or not parts.is_constant(gather.input[0]):
        return []
    cast = parts.maker(gather.input[1])
    if cast is None or cast.op_type != "Cast" or not parts.is_constant(cast.input[0]):
        return []
    return [cast, gather, last]
