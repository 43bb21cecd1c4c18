"""Grids of the weights that a quantized graph stores, and why one cannot be kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_ints, constant, fresh_name, set_initializer
from deploykit.graph.passes.affine import output_axis
from deploykit.graph.quantized.parameters import Parameters
from deploykit.graph.quantized.stored import Stored
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import GRID_BITS, Refused, WeightGrid, may_overflow

READERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
BLOCKED = "it has a scale for each block of inputs, and integer kernels take one for each output"
BY_INPUT = "its scales run along the inputs, and integer kernels take one for each output"
TOO_WIDE = (
    "its integers less the zero point reach {}, and symmetric int8, which the runtimes' kernels "
    "take, ends at 127"
)
LOWEST = "an output has -128 twice, two products of which overflow 16 bits in older ARM kernels"


def weight_grids(
    graph: ir.Graph,
    stored: Mapping[ir.Value, tuple[Stored, Parameters]],
    stated: Mapping[str, int],
) -> tuple[dict[str, WeightGrid], list[Refused]]:
    """By name of the float initializer that a layer multiplies with, renamed after the layer.

    stored: by float initializer. stated: bits that a file of deploykit says integers take, by name
    of these, where their element type is wider. A Transpose between the two is computed here.
    """
    grids: dict[str, WeightGrid] = {}
    refused: list[Refused] = []
    for value, (held, parameters) in stored.items():
        weight, order = _turned(graph, value)
        readers = [
            use.node for use in weight.uses() if use.idx == 1 and use.node.op_type in READERS
        ]
        if not readers:
            continue
        _rename(graph, weight, held, readers[0])
        for axis, read in _by_axis(graph, weight, readers, parameters):
            along = order[axis] if axis is not None and order is not None else axis
            found = _grid(held, parameters, along, stated.get(held.name))
            if isinstance(found, WeightGrid):
                grids[str(read.name)] = found
            else:
                bits = (held.high - held.low).bit_length()
                refused.append(Refused("weight", str(read.name), bits, found))
    return grids, refused


def _by_axis(
    graph: ir.Graph, weight: ir.Value, readers: Sequence[ir.Node], parameters: Parameters
) -> Iterator[tuple[int | None, ir.Value]]:
    """(the axis along which layers have their outputs, what these read).

    Layers that read one weight along different axes (a Gemm turns it, another does not) read copies
    where it has a scale for each channel, which is by output for one alone.
    """
    by_axis: dict[int | None, list[ir.Node]] = {}
    for node in readers:
        axis = _outputs_along(node if parameters.scale.size > 1 else readers[0])
        by_axis.setdefault(axis, []).append(node)
    for place, (axis, nodes) in enumerate(by_axis.items()):
        array = constant(weight)
        if place == 0 or array is None:
            yield axis, weight
            continue
        copy = set_initializer(graph, fresh_name(graph, f"{weight.name}.copy"), array)
        for node in nodes:
            node.replace_input_with(1, copy)
        yield axis, copy


def _outputs_along(reader: ir.Node) -> int | None:
    """Of a ConvTranspose in groups: the axis of each group's."""
    return 1 if reader.op_type == "ConvTranspose" else output_axis(reader)


def _grid(
    held: Stored, parameters: Parameters, axis: int | None, stated: int | None
) -> WeightGrid | str:
    """The grid, or why there is none. axis: of the stored integers, along the outputs."""
    if parameters.block:
        return BLOCKED
    own = parameters.axis % held.values.ndim
    if parameters.scale.size > 1 and own != axis:
        return BY_INPUT
    centred = parameters.centred(held.values)
    lowest, highest = int(centred.min(initial=0)), int(centred.max(initial=0))
    declared = stated or (held.high - held.low).bit_length()
    for bits in GRID_BITS:
        grid = WeightGrid(bits, np.atleast_1d(parameters.scale).astype(np.float32))
        if bits >= declared and grid.smallest <= lowest and highest <= grid.largest:
            rows = np.moveaxis(centred, axis or 0, 0).reshape(centred.shape[axis or 0], -1)
            return LOWEST if may_overflow(rows).any() else grid
    return TOO_WIDE.format(max(-lowest, highest))


def _turned(graph: ir.Graph, value: ir.Value) -> tuple[ir.Value, tuple[int, ...] | None]:
    """What a weight is behind its only reader, a Transpose, and that one's order."""
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or readers[0].op_type != "Transpose":
        return value, None
    (node,) = readers
    array: AnyArray | None = constant(value)
    if array is None or node.outputs[0].is_graph_output():
        return value, None
    order = attribute_ints(node, "perm", tuple(reversed(range(array.ndim))))
    name = fresh_name(graph, f"{value.name}.turned")
    turned = set_initializer(graph, name, array.transpose(order))
    ir.convenience.replace_all_uses_with(node.outputs[0], turned)
    graph.remove(node, safe=True)
    return turned, order


def _rename(graph: ir.Graph, weight: ir.Value, held: Stored, reader: ir.Node) -> None:
    """After the layer, as far as the file tells: layers are called after their weights."""
    bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    stem = "" if bias is None else str(bias.name)
    # The brevitas exporter names a stored weight by its module's path.
    path, _, handler = held.name.partition("/weight_quant/")
    if stem.endswith(".bias"):
        wanted = f"{stem.removesuffix('.bias')}.weight"
    elif handler:
        wanted = f"{path.strip('/').replace('/', '.')}.weight"
    else:
        wanted = held.name.removesuffix("_quantized")
    weight.name = fresh_name(graph, wanted)
