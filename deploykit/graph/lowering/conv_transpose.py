"""A transposed convolution as a convolution whose channels become pixels.

Along one axis, with stride s and begin pad p:

    y[s*q + r] = sum over m of x[q + a - m] * w[s*m + b],    r + p = s*a + b,  0 <= b < s

so for every phase r a plain convolution over x with the taps w[b], w[b + s], ...; DepthToSpace puts
the phases beside each other. No runtime has an integer kernel for the transposed form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string, floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.given import WeightGrid
from deploykit.spec.network import Network, static_shape


@dataclass(frozen=True)
class _Axis:
    """taps: [phase, tap], the index into w or -1 for zero. begin, end: pads. length: of a phase."""

    taps: tuple[tuple[int, ...], ...]
    begin: int
    end: int
    length: int


def lower_conv_transposes(network: Network) -> Rewritten:
    """Replace every ConvTranspose of constant weights on [N, C, H, W].

    Groups become one, with zeros between them, and dilated kernels what they stand for. A weight's
    grid is the phases'.
    """
    grids = dict(network.given.weights)

    def replace_one(graph: ir.Graph, node: ir.Node) -> None:
        (source, outputs), phases = _weight_of(node), int(np.prod(_strides(node)))
        made = _replace(graph, node)
        if source in grids:
            grids[made] = _phased(grids.pop(source), outputs, phases)

    found = replace_each(network, _fits, replace_one)
    given = replace(found.network.given, weights=grids)
    return replace(found, network=replace(found.network, given=given)) if grids else found


def _weight_of(node: ir.Node) -> tuple[str, int]:
    """(name, output channels of all groups)."""
    weight = node.inputs[1]
    shape = static_shape(weight)
    assert weight is not None and shape is not None
    return str(weight.name), shape[1] * attribute_int(node, "group", 1)


def _strides(node: ir.Node) -> tuple[int, ...]:
    return attribute_ints(node, "strides", (1, 1))


def _phased(grid: WeightGrid, outputs: int, phases: int) -> WeightGrid:
    """[1] as it is; [O] or, one for each place of a group, [O/groups] -> [phases * O]."""
    if grid.scale.size == 1 or outputs % grid.scale.size:  # channels have gone: each finds its own
        return grid
    return replace(grid, scale=np.tile(grid.scale, phases * outputs // grid.scale.size))


def _fits(node: ir.Node) -> bool:
    if node.op_type != "ConvTranspose" or floats(node.inputs[1]) is None:
        return False
    shape, source = static_shape(node.outputs[0]), static_shape(node.inputs[0])
    return shape is not None and source is not None and len(shape) == len(source) == 4


def _begins(node: ir.Node, kernel: tuple[int, ...]) -> tuple[int, int]:
    """Pads in front; a written output_shape, or auto_pad SAME, decides them by the output's shape.

    kernel: as far as it reaches. Source: ONNX operator specification, ConvTranspose.
    """
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and result is not None
    auto_pad = attribute_string(node, "auto_pad", "NOTSET")
    if "output_shape" not in node.attributes and not auto_pad.startswith("SAME"):
        top, left, *_ = attribute_ints(node, "pads", (0, 0, 0, 0))
        return top, left
    strides = attribute_ints(node, "strides", (1, 1))
    extra = attribute_ints(node, "output_padding", (0, 0))
    begins = []
    for axis in (0, 1):
        full = strides[axis] * (source[2 + axis] - 1) + kernel[axis] + extra[axis]
        total = max(0, full - result[2 + axis])
        begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
    return begins[0], begins[1]


def _dense(node: ir.Node) -> Float64Array:
    """[I, O/groups, kh, kw] -> [I, O, kh, kw], zeros between groups and between dilated taps."""
    weight = floats(node.inputs[1])
    assert weight is not None
    groups, dilations = attribute_int(node, "group", 1), attribute_ints(node, "dilations", (1, 1))
    inputs, outputs = weight.shape[:2]
    reach = [step * (size - 1) + 1 for step, size in zip(dilations, weight.shape[2:], strict=True)]
    dense = np.zeros((inputs, groups * outputs, *reach))
    for group in range(groups):
        rows = slice(group * inputs // groups, (group + 1) * inputs // groups)
        columns = slice(group * outputs, (group + 1) * outputs)
        dense[rows, columns, :: dilations[0], :: dilations[1]] = weight[rows]
    return dense


def _axis(source: int, result: int, kernel: int, stride: int, pad: int) -> _Axis:
    """Geometry along one axis; source, result: lengths."""
    phases = [divmod(r + pad, stride) for r in range(stride)]
    reach = [-(-(kernel - b) // stride) if b < kernel else 0 for _, b in phases]
    first = min(0, *(a - count + 1 for (a, _), count in zip(phases, reach, strict=True)))
    last = max(0, *(a for a, _ in phases))
    taps = []
    for (a, b), count in zip(phases, reach, strict=True):
        offsets = [a - j for j in range(first, last + 1)]
        taps.append(tuple(stride * m + b if 0 <= m < count else -1 for m in offsets))
    length = -(-result // stride)
    needed = length + (last - first) - source + first
    return _Axis(tuple(taps), -first, max(needed, 0), length + max(-needed, 0))


def _replace(graph: ir.Graph, node: ir.Node) -> str:
    """Put the convolution in; the name of its weight."""
    weight = _dense(node)
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert shape is not None and result is not None
    down, across = _strides(node)
    top, left = _begins(node, weight.shape[2:])
    rows = _axis(shape[2], result[2], weight.shape[2], down, top)
    columns = _axis(shape[3], result[3], weight.shape[3], across, left)
    new, outputs = Replacement(graph, node), weight.shape[1]
    bias = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = np.zeros(outputs) if bias is None else bias
    held = new.constant("weight", _phases(weight, rows, columns))
    shifts = new.constant("bias", np.tile(bias, down * across))
    size = (len(rows.taps[0]), len(columns.taps[0]))
    attributes = {
        "kernel_shape": list(size), "strides": [1, 1], "dilations": [1, 1],
        "pads": [rows.begin, columns.begin, rows.end, columns.end], "group": 1,
    }  # fmt: skip
    batch, depth = shape[0], down * across * outputs
    phases = (batch, depth, rows.length, columns.length)
    value = new.node("Conv", [node.inputs[0], held, shifts], "phases", phases, attributes)
    height, width = rows.length * down, columns.length * across
    whole = (batch, outputs, height, width)
    if down == across > 1:
        value = new.node("DepthToSpace", [value], "pixels", whole, {"blocksize": down,
                                                                    "mode": "DCR"})  # fmt: skip
    elif (down, across) != (1, 1):
        value = _interleaved(new, value, (down, across), phases, whole)
    for axis, have in ((2, height), (3, width)):
        if have == result[axis]:
            continue
        height = result[2]
        spans = [
            new.constant(f"{what}{axis}", np.array([place], np.int64))
            for what, place in (("start", 0), ("stop", result[axis]), ("axis", axis))
        ]
        cut = (batch, outputs, height, width if axis == 2 else result[3])
        value = new.node("Slice", [value, *spans], f"cut{axis}", cut)
    new.finish(value)
    return str(held.name)


def _interleaved(
    new: Replacement,
    value: ir.Value,
    strides: tuple[int, int],
    phases: tuple[int, ...],
    whole: tuple[int, ...],
) -> ir.Value:
    """Phases beside each other where there are unequally many along both axes."""
    batch, outputs = whole[:2]
    apart = (batch, *strides, outputs, *phases[2:])
    order = (0, 3, 4, 1, 5, 2)
    value = new.reshaped(value, "apart", apart)
    turned = tuple(apart[axis] for axis in order)
    value = new.node("Transpose", [value], "turned", turned, {"perm": list(order)})
    return new.reshaped(value, "pixels", whole)


def _phases(weight: Float64Array, rows: _Axis, columns: _Axis) -> Float64Array:
    """[I, O, kh, kw] -> [sh*sw*O, I, taps down, taps across]; channel (i*sw + j)*O + o: a phase."""
    wide = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # index -1 is a zero
    parts = [
        wide[:, :, np.array(down)[:, None], np.array(across)[None, :]].transpose(1, 0, 2, 3)
        for down in rows.taps
        for across in columns.taps
    ]
    return np.concatenate(parts)
