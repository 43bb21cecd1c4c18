"""float_ports: inputs and outputs of integers as floats on the same grid.

    x int8 -> DequantizeLinear      becomes      x float -> QuantizeLinear -> DequantizeLinear
    QuantizeLinear -> y int8        becomes      QuantizeLinear -> DequantizeLinear -> y float

What the network computes of the real numbers that its integers stand for stays as it is.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from deploykit.graph.quantized.twins import MOVING

INTEGERS = frozenset((TensorProto.INT8, TensorProto.UINT8))


def float_ports(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float ports; itself where none is of integers on one grid."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    held = {tensor.name for tensor in graph.initializer}
    ports = [port for port in graph.input if port.name not in held]
    changed = [
        *(port for port in ports if _is_of_integers(port) and _quantize(graph, port)),
        *(port for port in graph.output if _is_of_integers(port) and _dequantize(graph, port)),
    ]
    for port in changed:
        port.type.tensor_type.elem_type = TensorProto.FLOAT
    return found if changed else model


def _is_of_integers(port: onnx.ValueInfoProto) -> bool:
    return port.type.tensor_type.elem_type in INTEGERS


def _quantize(graph: onnx.GraphProto, port: onnx.ValueInfoProto) -> bool:
    """Make an input's integers of floats, on the grid of all that read it; whether there is one."""
    readers = [node for node in graph.node if port.name in node.input]
    grids = _grids(graph, port.name)
    if grids is None or len(grids) != 1:
        return False
    integers, (grid,) = _unused(graph, port.name), grids
    place = next(index for index, node in enumerate(graph.node) if port.name in node.input)
    if any(name in node.output for node in list(graph.node)[place:] for name in grid):
        return False
    for node in readers:
        node.input[0] = integers
    graph.node.insert(place, _node("QuantizeLinear", port, port.name, integers, graph, grid))
    return True


def _grids(graph: onnx.GraphProto, integers: str) -> set[tuple[str, ...]] | None:
    """On which they are read, as they are or moved; None where something else reads them."""
    found: set[tuple[str, ...]] = set()
    waiting = [integers]
    while waiting:
        name = waiting.pop()
        for node in graph.node:
            if name not in node.input:
                continue
            if node.input[0] != name or name in {port.name for port in graph.output}:
                return None
            if node.op_type == "DequantizeLinear":
                found.add(tuple(node.input[1:]))
            elif node.op_type in MOVING:
                waiting.extend(node.output)
            else:
                return None
    return found


def _dequantize(graph: onnx.GraphProto, port: onnx.ValueInfoProto) -> bool:
    """Make floats of an output's integers, on the grid of what writes it, if it has one."""
    writer = next((node for node in graph.node if port.name in node.output), None)
    if writer is None or writer.op_type != "QuantizeLinear":
        return False
    integers, grid = _unused(graph, port.name), tuple(writer.input[1:])
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == port.name:
                node.input[index] = integers
    writer.output[0] = integers
    graph.node.append(_node("DequantizeLinear", port, integers, port.name, graph, grid))
    return True


def _node(
    operator: str,
    port: onnx.ValueInfoProto,
    source: str,
    output: str,
    graph: onnx.GraphProto,
    grid: tuple[str, ...],
) -> onnx.NodeProto:
    """Without a zero point QuantizeLinear would make uint8, whatever the port is of."""
    scale, *zero_points = grid
    zero_point = next(iter(zero_points), "")
    if not zero_point:
        zero_point = _unused(graph, f"{port.name}.zero_point")
        kind = port.type.tensor_type.elem_type
        graph.initializer.append(helper.make_tensor(zero_point, kind, [], [0]))
    name = _unused(graph, f"{port.name}.port")
    return helper.make_node(operator, [source, scale, zero_point], [output], name=name)


def _unused(graph: onnx.GraphProto, name: str) -> str:
    """A name behind which nothing stands."""
    taken = {one for node in graph.node for one in (*node.input, *node.output, node.name)}
    taken.update(one.name for one in (*graph.initializer, *graph.input, *graph.output))
    wanted, number = f"{name}.integers", 1
    while wanted in taken:
        wanted, number = f"{name}.integers_{number}", number + 1
    return wanted
