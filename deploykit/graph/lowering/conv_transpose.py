"""A transposed convolution as a convolution whose channels become pixels.

Along one axis, with stride s and begin pad p:

    y[s*q + r] = sum over m of x[q + a - m] * w[s*m + b],    r + p = s*a + b,  0 <= b < s

so for every phase r a plain convolution over x with the taps w[b], w[b + s], ...; DepthToSpace puts
the phases beside each other. No runtime has an integer kernel for the transposed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_ints, attribute_string, floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape


@dataclass(frozen=True)
class _Axis:
    """taps: [phase, tap], the index into w or -1 for zero. begin, end: pads. length: of a phase."""

    taps: tuple[tuple[int, ...], ...]
    begin: int
    end: int
    length: int


def lower_conv_transposes(network: Network) -> Rewritten:
    """Replace every ConvTranspose of one group, equal strides, and no dilation on [N, C, H, W]."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    if node.op_type != "ConvTranspose" or floats(node.inputs[1]) is None:
        return False
    shape, strides = static_shape(node.outputs[0]), attribute_ints(node, "strides", (1, 1))
    plain = attribute_string(node, "auto_pad", "NOTSET") == "NOTSET"
    plain &= attribute_int(node, "group", 1) == 1
    plain &= set(attribute_ints(node, "dilations", (1, 1))) == {1}
    return plain and shape is not None and len(shape) == 4 and len(set(strides)) == 1


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


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    weight = floats(node.inputs[1])
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert weight is not None and shape is not None and result is not None
    stride = attribute_ints(node, "strides", (1, 1))[0]
    top, left, *_ = attribute_ints(node, "pads", (0, 0, 0, 0))
    rows = _axis(shape[2], result[2], weight.shape[2], stride, top)
    columns = _axis(shape[3], result[3], weight.shape[3], stride, left)
    new, outputs = Replacement(graph, node), weight.shape[1]
    bias = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = np.zeros(outputs) if bias is None else bias
    held = new.constant("weight", _phases(weight, rows, columns))
    shifts = new.constant("bias", np.tile(bias, stride * stride))
    size = (len(rows.taps[0]), len(columns.taps[0]))
    attributes = {
        "kernel_shape": list(size), "strides": [1, 1], "dilations": [1, 1],
        "pads": [rows.begin, columns.begin, rows.end, columns.end], "group": 1,
    }  # fmt: skip
    batch, depth = shape[0], stride * stride * outputs
    phases = (batch, depth, rows.length, columns.length)
    value = new.node("Conv", [node.inputs[0], held, shifts], "phases", phases, attributes)
    height, width = rows.length * stride, columns.length * stride
    if stride > 1:
        whole = (batch, outputs, height, width)
        options = {"blocksize": stride, "mode": "DCR"}
        value = new.node("DepthToSpace", [value], "pixels", whole, options)
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


def _phases(weight: Float64Array, rows: _Axis, columns: _Axis) -> Float64Array:
    """[I, O, kh, kw] -> [s*s*O, I, taps down, taps across]; channel (i*s + j)*O + o is a phase."""
    wide = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # index -1 is a zero
    parts = [
        wide[:, :, np.array(down)[:, None], np.array(across)[None, :]].transpose(1, 0, 2, 3)
        for down in rows.taps
        for across in columns.taps
    ]
    return np.concatenate(parts)
