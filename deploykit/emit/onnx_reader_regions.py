"""Which nodes of an ONNX file are the inside of an island or a rearrangement.

The reader takes such nodes as a whole: what they compute is the float graph's matter, and is proved
by running them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto

from deploykit.emit.onnx_operands import Operands
from deploykit.emit.onnx_parts import Parts
from deploykit.errors import GraphError
from deploykit.spec.operators import Island, Rearrange


@dataclass(frozen=True)
class ReadRegion:
    """last: name of the node in whose place the operator stands. inner: names of all the others."""

    operator: Island | Rearrange
    last: str
    inner: frozenset[str]


def find_regions(
    parts: Parts, operands: Operands, stated: Mapping[str, str]
) -> tuple[ReadRegion, ...]:
    """stated: the file's metadata by the ONNX name of a region's uint8 result, JSON."""
    return tuple(_region(parts, operands, name, text) for name, text in stated.items())


def _region(parts: Parts, operands: Operands, result: str, text: str) -> ReadRegion:
    found = json.loads(text)
    kind, name, inputs = str(found["operator"]), str(found["name"]), tuple(found["inputs"])
    output = operands.tensor(result)
    end = NodeProto(op_type="The region of", name=result, input=[result])
    if kind == "Island":
        quantize = parts.producer(result, end, "QuantizeLinear")
        nodes, read = _inside(parts, operands, quantize.input[0], set())
        operator: Island | Rearrange = Island(name, inputs, output, None)
    elif kind == "Rearrange" and len(inputs) == 1:
        nodes, read = _inside(parts, operands, result, set(inputs))
        operator = Rearrange(name, inputs[0], output, None)
    else:
        raise GraphError(f"The file calls the nodes before {result!r} {text}, which is unknown.")
    if read != set(inputs):
        raise GraphError(
            f"{kind} {name!r} reads {sorted(read)} in the file, and its metadata says "
            f"{sorted(inputs)}; the file is damaged."
        )
    last = nodes[0].name
    return ReadRegion(operator, last, frozenset(node.name for node in nodes[1:]))


def _inside(
    parts: Parts, operands: Operands, result: str, borders: set[str]
) -> tuple[list[NodeProto], set[str]]:
    """The nodes behind a result, its own first, and the integer tensors that they start from.

    borders: integer tensors at which they start without a DequantizeLinear.
    """
    nodes: dict[str, NodeProto] = {}
    read: set[str] = set()
    waiting = [result]
    while waiting:
        name = waiting.pop()
        node = parts.maker(name)
        if not name or parts.is_constant(name):
            continue
        if operands.tensor(name) in borders and name != result:
            read.add(operands.tensor(name))
        elif node is None:
            raise GraphError(f"{name!r} is read by a region that does not name it.")
        elif node.op_type == "DequantizeLinear":
            if not parts.is_constant(node.input[0]):
                read.add(operands.tensor(node.input[0]))
        elif node.op_type == "QuantizeLinear":
            raise GraphError(f"QuantizeLinear {node.name!r} lies inside of a region.")
        elif node.name not in nodes:
            nodes[node.name] = node
            waiting.extend(node.input)
    if not nodes:
        raise GraphError(f"No node computes {result!r}, which the file calls a region's result.")
    return list(nodes.values()), read
