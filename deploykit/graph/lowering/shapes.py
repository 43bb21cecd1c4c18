"""Pads and slices in the form that integers have.

Pad of zeros before a convolution    the convolution's own pads
Slice of several axes                one Slice per axis that it cuts
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_ints, attribute_string, bypass, constant, readers
from deploykit.graph.lowering.building import Replacement
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape


def fold_pads(network: Network) -> Rewritten:
    """Let every convolution that reads a Pad of zeros pad by itself; idle Pads go."""
    if not any(_folding(node) or _idle(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in list(model.graph):
        if _folding(node):
            _fold(model.graph, node)
        elif _idle(node) and node.inputs[0] is not None:
            bypass(model.graph, node, node.inputs[0])
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    source, widths, output = node.inputs[0], _widths(node), node.outputs[0]
    assert source is not None and widths is not None
    for reader in readers(output):
        if _takes(reader, output):
            own = attribute_ints(reader, "pads", ())
            pads = [a + b for a, b in zip(own, widths, strict=True)]
            reader.attributes["pads"] = ir.AttrInt64s("pads", pads)
            reader.replace_input_with(0, source)
    if not output.uses() and not output.is_graph_output():
        graph.remove(node, safe=True)


def _idle(node: ir.Node) -> bool:
    """Whether a Pad adds nothing, and does not connect an input to an output."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type != "Pad" or source is None or any(_widths(node) or (1,)):
        return False
    return source.producer() is not None or not node.outputs[0].is_graph_output()


def _folding(node: ir.Node) -> bool:
    if node.op_type != "Pad" or _widths(node) is None:
        return False
    return any(_takes(reader, node.outputs[0]) for reader in readers(node.outputs[0]))


def _takes(reader: ir.Node, padded: ir.Value) -> bool:
    """Whether a reader is a convolution over images whose pads are written out."""
    alone = reader.op_type == "Conv" and reader.inputs[0] is padded
    return alone and len(attribute_ints(reader, "pads", ())) == 4


def _widths(node: ir.Node) -> tuple[int, int, int, int] | None:
    """Pads with zeros along H and W: top, left, bottom, right; None for any others."""
    shape, widths, value = (
        static_shape(node.inputs[0]), constant(node.inputs[1]),
        constant(node.inputs[2]) if len(node.inputs) > 2 else None,
    )  # fmt: skip
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    plain = attribute_string(node, "mode", "constant") == "constant"
    axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if shape is None or len(shape) != 4 or widths is None or axes or not plain:
        return None
    if widths.size != 8 or widths.min() < 0 or widths[[0, 1, 4, 5]].any():
        return None
    if given and (value is None or float(value.reshape(())) != 0.0):
        return None
    top, left, bottom, right = (int(widths[place]) for place in (2, 3, 6, 7))
    return top, left, bottom, right


def split_slices(network: Network) -> Rewritten:
    """One Slice per axis in place of a Slice of several; a Slice that cuts nothing goes."""
    if not any(_cuts_several(node) or _cuts_nothing(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in list(model.graph):
        if _cuts_nothing(node) and node.inputs[0] is not None:
            bypass(model.graph, node, node.inputs[0])
        elif _cuts_several(node):
            _split(model.graph, node)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _cuts_nothing(node: ir.Node) -> bool:
    """Whether a Slice takes all, and does not connect an input to an output."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type != "Slice" or source is None or _spans(node) != ():
        return False
    return source.producer() is not None or not node.outputs[0].is_graph_output()


def _spans(node: ir.Node) -> tuple[tuple[int, int, int, int], ...] | None:
    """(axis, start, stop, step) of each axis that a Slice cuts.

    None where they are not known, and where numbers come backwards.
    """
    shape = static_shape(node.inputs[0])
    held = [constant(value) for value in node.inputs[1:]]
    if shape is None or len(held) < 2 or held[0] is None or held[1] is None:
        return None
    count = held[0].size
    missing = any(
        array is None and value is not None
        for array, value in zip(held, node.inputs[1:], strict=True)
    )
    if missing:
        return None
    axes = held[2] if len(held) > 2 and held[2] is not None else np.arange(count)
    steps = held[3] if len(held) > 3 and held[3] is not None else np.ones(count, np.int64)
    spans = []
    for axis, start, stop, step in zip(axes, held[0], held[1], steps, strict=True):
        size, place = shape[int(axis)], int(axis) % len(shape)
        begin, end, stride = slice(int(start), int(stop), int(step)).indices(size)
        if stride < 0 or begin >= end:
            return None
        if (begin, end, stride) != (0, size, 1):
            spans.append((place, begin, end, stride))
    return tuple(spans)


def _cuts_several(node: ir.Node) -> bool:
    if node.op_type != "Slice" or static_shape(node.outputs[0]) is None:
        return False
    starts = constant(node.inputs[1])
    return starts is not None and starts.size > 1 and bool(_spans(node))


def _split(graph: ir.Graph, node: ir.Node) -> None:
    new, value = Replacement(graph, node), node.inputs[0]
    shape = list(static_shape(value) or ())
    for axis, start, stop, step in _spans(node) or ():
        places = [
            new.constant(f"{what}{axis}", np.array([place], np.int64))
            for what, place in (("start", start), ("stop", stop), ("axis", axis), ("step", step))
        ]
        shape[axis] = len(range(start, stop, step))
        value = new.node("Slice", [value, *places], f"cut{axis}", tuple(shape))
    assert value is not None
    new.finish(value)
