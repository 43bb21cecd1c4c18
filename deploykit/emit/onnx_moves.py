"""The ONNX operators that move or compare the uint8 integers of a network themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from deploykit.emit.onnx_format import CHANNELS, turning, turns
from deploykit.emit.onnx_graph import OnnxGraph
from deploykit.emit.onnx_regions import write_rearrange
from deploykit.spec.operators import (
    Clamp,
    Concat,
    DepthToSpace,
    Flatten,
    Gather,
    Maximum,
    MaxPool,
    Minimum,
    Moving,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Window,
    operator_inputs,
)
from deploykit.spec.quantized import UINT8_SHIFT

NEAREST: Mapping[str, object] = {
    "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
}  # fmt: skip


def write_moving(operator: Moving, graph: OnnxGraph) -> None:
    """Append one operator that moves or compares integers."""
    name = operator.name
    match operator:
        case Maximum() | Minimum():
            op_type = "Max" if isinstance(operator, Maximum) else "Min"
            _write_integer(op_type, operator, graph)
        case MaxPool():
            attributes = window_attributes(operator.window)
            attributes["dilations"] = list(operator.window.dilations)
            _write_integer("MaxPool", operator, graph, attributes=attributes)
        case Flatten():
            _write_integer("Flatten", operator, graph, attributes={"axis": 1})
        case Clamp():
            bounds = [
                graph.initializer(f"{name}.{side}", np.array(bound + UINT8_SHIFT, np.uint8))
                for side, bound in (("low", operator.low), ("high", operator.high))
            ]
            _write_integer("Clip", operator, graph, bounds)
        case Concat():
            _write_integer("Concat", operator, graph, attributes={"axis": operator.axis})
        case Slice():
            spans = (
                ("start", operator.start), ("stop", operator.stop), ("axis", operator.axis),
                ("step", operator.step),
            )  # fmt: skip
            places = [
                graph.initializer(f"{name}.{what}", np.array([place], np.int64))
                for what, place in spans
            ]
            _write_integer("Slice", operator, graph, places)
        case Gather():
            _write_gather(operator, graph)
        case Repeat():
            scales = np.array([1, 1, operator.rows, operator.columns], np.float32)
            constants = ["", graph.initializer(f"{name}.scales", scales)]
            _write_integer("Resize", operator, graph, constants, NEAREST)
        case DepthToSpace():
            attributes = {"blocksize": operator.block, "mode": "DCR"}
            _write_integer("DepthToSpace", operator, graph, attributes=attributes)
        case SpaceToDepth():
            _write_integer(
                "SpaceToDepth", operator, graph, attributes={"blocksize": operator.block}
            )
        case Pad():
            top, left, bottom, right = operator.pads
            widths = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            constants = [
                graph.initializer(f"{name}.pads", widths),
                graph.initializer(f"{name}.fill", np.array(operator.fill + UINT8_SHIFT, np.uint8)),
            ]
            _write_integer("Pad", operator, graph, constants)
        case Reshape():
            # The batch is the input's own, whether the file fixes it or not.
            shape = np.array([0, *graph.tensor(operator.output).shape[1:]], np.int64)
            _write_integer("Reshape", operator, graph, [graph.initializer(f"{name}.shape", shape)])
        case Rearrange():
            graph.require_equal(operator.input, operator.output, name)
            write_rearrange(operator, graph)
        case _:
            assert_never(operator)


def _write_integer(
    op_type: str,
    operator: Moving,
    graph: OnnxGraph,
    constants: list[str] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """An operator that moves or compares integers; input and output share one quantization."""
    read = operator_inputs(operator)
    for source in read:
        graph.require_equal(source, operator.output, operator.name)
    inputs = [*map(graph.integers, read), *(constants or [])]
    graph.node(op_type, inputs, graph.integer(operator.output), operator.name, attributes)


def _write_gather(operator: Gather, graph: OnnxGraph) -> None:
    """Gather; of columns, or of anything else but the channels that lies along the last axis, of
    what a Transpose put in the channels' place: by single bytes ONNX Runtime takes 40 times longer.
    """
    name, rank = operator.name, len(graph.tensor(operator.output).shape)
    indices = graph.initializer(f"{name}.indices", np.array(operator.indices, np.int64))
    if not turns(operator.axis, rank):
        _write_integer("Gather", operator, graph, [indices], {"axis": operator.axis})
        return
    graph.require_equal(operator.input, operator.output, name)
    there, back = turning(rank)
    source, output = graph.integer(operator.input), operator.output
    turned, taken = (graph.fresh(f"{output}.{how}") for how in ("turned", "taken"))
    graph.helper("Transpose", [source], turned, f"{name}.turn", {"perm": there})
    graph.helper("Gather", [turned, indices], taken, f"{name}.take", {"axis": CHANNELS})
    graph.node("Transpose", [taken], graph.integer(output), name, {"perm": back})


def window_attributes(window: Window) -> dict[str, object]:
    """A window in the attributes of Conv and MaxPool, dilations apart."""
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "pads": list(window.pads),
    }
