"""Axes that an operator states in more than one way, in one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant, fresh_name, set_initializer
from deploykit.spec.network import static_shape


def name_squeezed_axes(graph: ir.Graph, node: ir.Node) -> None:
    """Squeeze without axes drops every axis of size 1: it names those that have it now."""
    named = len(node.inputs) > 1 or "axes" in node.attributes
    shape = static_shape(node.inputs[0])
    if node.op_type != "Squeeze" or named or shape is None:
        return
    axes = np.array([axis for axis, size in enumerate(shape) if size == 1], dtype=np.int64)
    held = set_initializer(graph, fresh_name(graph, f"{node.outputs[0].name}.axes"), axes)
    node.resize_inputs(2)
    node.replace_input_with(1, held)


def pad_every_axis(graph: ir.Graph, node: ir.Node) -> None:
    """Widths for every axis instead of those named, which ONNX Runtime's layout pass misreads.

    One whose widths or axes are computed stays.
    """
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    widths, axes = constant(node.inputs[1]), constant(node.inputs[3] if node.inputs[3:] else None)
    if shape is None or widths is None or axes is None:
        return
    whole = np.zeros((2, len(shape)), dtype=np.int64)
    whole[:, axes.reshape(-1)] = widths.reshape(2, -1)
    name = fresh_name(graph, f"{node.outputs[0].name}.pads")
    node.replace_input_with(1, set_initializer(graph, name, whole.reshape(-1)))
    node.resize_inputs(3 if node.inputs[2] is not None else 2)
