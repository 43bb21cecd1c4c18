"""MaxPool over windows with holes, which TFLite does not have, one axis after another.

    y[o] = max over j of x[o * stride - pad + j * dilation]

Each j is a Slice or a Gather of the axis; where it lies in the padding, which never wins, another
place of the same window is taken instead. Axes without holes stay a MaxPool.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_ints
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import IntArray
from deploykit.spec.network import Network, static_shape

PIXELS = (2, 3)


def lower_dilated_pools(network: Network) -> Rewritten:
    """Replace every MaxPool of [N, C, H, W] with dilations over 1, none of which gives indices."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    if node.op_type != "MaxPool" or len(node.outputs) != 1:
        return False
    shapes = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if None in shapes or len(shapes[0] or ()) != 4 or len(attribute_ints(node, "pads", ())) != 4:
        return False
    return any(_holes(node)) and all(len(_taken(node, axis)) for axis in (0, 1))


def _holes(node: ir.Node) -> tuple[bool, bool]:
    """Along H and W: whether a window skips places there."""
    kernel = attribute_ints(node, "kernel_shape", (1, 1))
    dilations = attribute_ints(node, "dilations", (1, 1))
    return kernel[0] > 1 < dilations[0], kernel[1] > 1 < dilations[1]


def _taken(node: ir.Node, axis: int) -> list[IntArray]:
    """For each place of the window, which place of the input every window has there.

    Empty where a window lies in the padding as a whole.
    """
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and output is not None
    kernel, stride, dilation, pad = (
        attribute_ints(node, name, ())[axis]
        for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    length, windows = source[PIXELS[axis]], np.arange(output[PIXELS[axis]]) * stride - pad
    places = windows + np.arange(kernel)[:, None] * dilation
    inside = (places >= 0) & (places < length)
    if not inside.any(axis=0).all():
        return []
    first = places[inside.argmax(axis=0), np.arange(len(windows))]
    return list(np.where(inside, places, first).astype(np.int64))


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    new, value = Replacement(graph, node), node.inputs[0]
    output, holes = static_shape(node.outputs[0]), _holes(node)
    assert value is not None and output is not None
    shape = list(static_shape(value) or ())
    for axis, apart in enumerate(holes):
        shape[PIXELS[axis]] = output[PIXELS[axis]]
        if not apart:
            value = new.node("MaxPool", [value], f"pool{axis}", shape, _along(node, axis))
            continue
        parts = [
            _part(new, value, PIXELS[axis], taken, f"{axis}.{place}", shape)
            for place, taken in enumerate(_taken(node, axis))
        ]
        value = parts[0]
        for place, part in enumerate(parts[1:], 1):
            value = new.node("Max", [value, part], f"largest{axis}.{place}", shape)
    new.finish(value)


def _along(node: ir.Node, axis: int) -> dict[str, list[int]]:
    """The window of one axis alone; pads reach to where its last window ends (ceil_mode)."""
    kept = {"kernel_shape": [1, 1], "strides": [1, 1], "dilations": [1, 1]}
    for name, values in kept.items():
        values[axis] = attribute_ints(node, name, ())[axis]
    pads = list(attribute_ints(node, "pads", ()))
    pads[1 - axis] = pads[3 - axis] = 0
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and output is not None
    last = (output[PIXELS[axis]] - 1) * kept["strides"][axis] - pads[axis]
    pads[axis + 2] = max(last + kept["kernel_shape"][axis] - source[PIXELS[axis]], 0)
    return {**kept, "pads": pads}


def _part(
    new: Replacement, value: ir.Value, axis: int, taken: IntArray, name: str, shape: list[int]
) -> ir.Value:
    if (np.diff(taken) == 1).all():
        bounds = [
            new.constant(f"{what}{name}", np.array([place], np.int64))
            for what, place in (
                ("start", taken[0]), ("stop", taken[-1] + 1), ("axis", axis), ("step", 1)
            )
        ]  # fmt: skip
        return new.node("Slice", [value, *bounds], f"part{name}", shape)
    places = new.constant(f"places{name}", taken)
    return new.node("Gather", [value, places], f"part{name}", shape, {"axis": axis})
