"""A first convolution of stride 2 as SpaceToDepth(2) and a smaller one of stride 1.

With k - p = 2m + i, where p is the pad in front and i is 0 or 1, along each axis:

    y[o] = sum over k of w[k] * x[2*o + k - p] = sum over m, i of w[2m + i + p] * x[2*(o + m) + i]

and x[2*o + i] is what SpaceToDepth calls channel i at o. Kernels run through input channels, of
which an image has three; twelve use them better: 1.3 times as fast on a MobileNet's first layer in
ONNX Runtime (benchmarks/kernels.py), though the smaller kernel multiplies zeros too.
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

BLOCK = 2
MOST_CHANNELS = 4
"""Of a tensor that counts as an image."""


@dataclass(frozen=True)
class _Axis:
    """taps: [i, m], the index into w or -1 for zero. begin, end: pads of the smaller kernel."""

    taps: tuple[tuple[int, ...], ...]
    begin: int
    end: int


def lower_stems(network: Network) -> Rewritten:
    """Replace every Conv of stride 2 over an image of even size."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    shape = static_shape(node.inputs[0]) if node.op_type == "Conv" else None
    weight = floats(node.inputs[1]) if node.op_type == "Conv" else None
    result = static_shape(node.outputs[0])
    if shape is None or weight is None or result is None or len(shape) != 4:
        return False
    plain = attribute_string(node, "auto_pad", "NOTSET") == "NOTSET"
    plain &= attribute_int(node, "group", 1) == 1
    plain &= attribute_ints(node, "strides", (1, 1)) == (BLOCK, BLOCK)
    plain &= set(attribute_ints(node, "dilations", (1, 1))) == {1}
    even = not shape[2] % BLOCK and not shape[3] % BLOCK
    return plain and even and shape[1] <= MOST_CHANNELS and None not in _axes(node)


def _axes(node: ir.Node) -> tuple[_Axis | None, _Axis | None]:
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    weight = floats(node.inputs[1])
    assert shape is not None and result is not None and weight is not None
    pads = attribute_ints(node, "pads", (0, 0, 0, 0))
    rows, columns = (
        _axis(shape[2 + axis], result[2 + axis], weight.shape[2 + axis], pads[axis])
        for axis in (0, 1)
    )
    return rows, columns


def _axis(source: int, result: int, kernel: int, pad: int) -> _Axis | None:
    """Geometry along one axis; None where whole blocks at the end would be read by nobody."""
    first, last = -pad // BLOCK, (kernel - 1 - pad) // BLOCK
    taps = []
    for i in range(BLOCK):
        places = [BLOCK * m + i + pad for m in range(first, last + 1)]
        taps.append(tuple(k if 0 <= k < kernel else -1 for k in places))
    end = result - 1 + last - (source // BLOCK - 1)
    return None if end < 0 or first > 0 else _Axis(tuple(taps), -first, end)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    weight, shape = floats(node.inputs[1]), static_shape(node.inputs[0])
    result = static_shape(node.outputs[0])
    rows, columns = _axes(node)
    assert weight is not None and shape is not None and result is not None
    assert rows is not None and columns is not None
    new = Replacement(graph, node)
    batch, channels, height, width = shape
    deep = (batch, BLOCK * BLOCK * channels, height // BLOCK, width // BLOCK)
    pixels = new.node("SpaceToDepth", [node.inputs[0]], "blocks", deep, {"blocksize": BLOCK})
    held = new.constant("weight", _blocks(weight, rows, columns))
    bias = floats(node.inputs[2]) if len(node.inputs) > 2 else None
    shift = new.constant("bias", np.zeros(weight.shape[0]) if bias is None else bias)
    attributes = {
        "kernel_shape": [len(rows.taps[0]), len(columns.taps[0])], "strides": [1, 1],
        "dilations": [1, 1], "pads": [rows.begin, columns.begin, rows.end, columns.end], "group": 1,
    }  # fmt: skip
    new.finish(new.node("Conv", [pixels, held, shift], "small", result, attributes))


def _blocks(weight: Float64Array, rows: _Axis, columns: _Axis) -> Float64Array:
    """[O, C, kh, kw] -> [O, 4*C, taps down, taps across]; channel (i*2 + j)*C + c is pixel i, j."""
    wide = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # index -1 is a zero
    parts = [
        wide[:, :, np.array(down)[:, None], np.array(across)[None, :]]
        for down in rows.taps
        for across in columns.taps
    ]
    return np.concatenate(parts, axis=1)
