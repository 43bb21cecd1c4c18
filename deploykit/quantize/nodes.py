"""What the nodes of a canonical, lowered graph state: windows, bounds, spans, slopes, pads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Function, Window

FUNCTIONS: Mapping[str, Function] = {
    "Elu": Function.ELU,
    "Erf": Function.ERF,
    "Exp": Function.EXP,
    "Gelu": Function.GELU,
    "Mish": Function.MISH,
    "Pow": Function.POWER,
    "Sigmoid": Function.SIGMOID,
    "Softplus": Function.SOFTPLUS,
    "Softsign": Function.SOFTSIGN,
    "Tanh": Function.TANH,
    "ThresholdedRelu": Function.THRESHOLDED,
}


EXTREMES = frozenset(("Max", "Min"))


def activations(node: ir.Node) -> tuple[ir.Value, ...]:
    """What a node reads that is no constant."""
    return tuple(value for value in node.inputs if value is not None and value.const_value is None)


def window_of(node: ir.Node) -> Window:
    """The sliding window of a canonical Conv or MaxPool node.

    Padding behind the last window, which no window reaches, is left out: formats that state
    padding as VALID or SAME cannot carry it, and it changes nothing.
    """

    def pair(name: str) -> tuple[int, int]:
        first, second = node.attributes[name].as_ints()
        return int(first), int(second)

    kernel, strides, dilations = pair("kernel_shape"), pair("strides"), pair("dilations")
    top, left, *_ = (int(pad) for pad in node.attributes["pads"].as_ints())
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and output is not None
    ends = []
    for axis, begin in ((0, top), (1, left)):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        last = (output[2 + axis] - 1) * strides[axis] + reach
        ends.append(max(last - begin - source[2 + axis], 0))
    return Window(kernel, strides, (top, left, ends[0], ends[1]), dilations)


def groups_of(node: ir.Node) -> int:
    """Groups of a convolution; 1 for any other node."""
    return int(node.attributes["group"].as_int()) if "group" in node.attributes else 1


def joined_axis(node: ir.Node) -> int:
    """Along which axis a Concat joins, counted from the front."""
    return int(node.attributes["axis"].as_int()) % len(node.outputs[0].shape or ())


def gathered_axis(node: ir.Node) -> int:
    """Along which axis a Gather takes, counted from the front."""
    axis = int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
    return axis % len(static_shape(node.inputs[0]) or (1,))


def arg_axis(node: ir.Node) -> int:
    """Along which axis an ArgMax looks, counted from the front."""
    axis = int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
    return axis % len(static_shape(node.inputs[0]) or (1,))


def clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    """(low, high) of a Relu or Clip node; None where it does not bound."""
    if node.op_type == "Relu":
        return 0.0, None
    bounds: list[float | None] = []
    for index in (1, 2):
        array = constant(node, index)
        bound = math.nan if array is None else float(array.reshape(()))
        bounds.append(bound if math.isfinite(bound) else None)
    return bounds[0], bounds[1]


def function_of(node: ir.Node) -> Function:
    """What a node of kind LOOKUP tabulates."""
    if node.op_type == "Gelu" and text(node, "approximate", "none") == "tanh":
        return Function.GELU_TANH
    return FUNCTIONS[node.op_type]


def parameter_of(node: ir.Node) -> float:
    """Of the function that a node of kind LOOKUP tabulates; 0 where it has none."""
    if node.op_type == "ThresholdedRelu":
        return float(node.attributes["alpha"].as_float()) if "alpha" in node.attributes else 1.0
    exponent = constant(node, 1) if node.op_type == "Pow" else None
    return 0.0 if exponent is None else float(exponent.reshape(()))


def spans_of(node: ir.Node) -> tuple[tuple[int, int, int, int], ...]:
    """(axis, start, stop, step) of a Slice, or of every output of a Split.

    Empty where there is no integer form.
    """
    shape = static_shape(node.inputs[0])
    if shape is None:
        return ()
    if node.op_type == "Split":
        sizes = [static_shape(output) for output in node.outputs]
        axis = int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
        axis %= len(shape)
        ends = np.cumsum([0, *((size or shape)[axis] for size in sizes)]).tolist()
        return tuple((axis, start, stop, 1) for start, stop in pairwise(ends))
    starts, stops = constant(node, 1), constant(node, 2)
    if starts is None or stops is None or starts.size != 1:
        return ()
    axes, steps = constant(node, 3), constant(node, 4)
    axis = 0 if axes is None else int(axes.item()) % len(shape)
    step = 1 if steps is None else int(steps.item())
    start, stop, step = slice(int(starts.item()), int(stops.item()), step).indices(shape[axis])
    return ((axis, start, stop, step),) if step > 0 and start < stop else ()


def repeats_of(node: ir.Node) -> tuple[int, int] | None:
    """(down, across) of a Resize that repeats whole pixels, None for any other."""
    mode = text(node, "mode", "nearest")
    place = text(node, "coordinate_transformation_mode", "half_pixel")
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or result is None or len(shape) != 4 or shape[:2] != result[:2]:
        return None
    whole = not result[2] % shape[2] and not result[3] % shape[3]
    # Centres of whole multiples never lie in the middle; corners need the pixel before.
    rounds = text(node, "nearest_mode", "round_prefer_floor")
    centred = place in {"half_pixel", "pytorch_half_pixel"} and rounds.startswith("round")
    cornered = place == "asymmetric" and rounds == "floor"
    if mode != "nearest" or not whole or not (centred or cornered):
        return None
    return result[2] // shape[2], result[3] // shape[3]


def slope_of(node: ir.Node) -> int:
    """Of a LeakyRelu, in 1/256ths, of which LiteRT keeps a whole number, not zero."""
    return max(round(leaky_slope(node) * 256), 1)


def reaches_beyond(node: ir.Node) -> bool:
    """Whether an operator that shares its input's quantization has values beyond the input's."""
    if node.op_type in EXTREMES:
        return bound_of(node) is not None
    if node.op_type == "Clip":
        low, high = clip_bounds(node)
        return (low is not None and low > 0.0) or (high is not None and high < 0.0)
    padded = pads_of(node) if node.op_type == "Pad" else None
    steep = node.op_type == "LeakyRelu" and leaky_slope(node) > 1.0
    return steep or (padded is not None and padded[1] != 0.0)


def bound_of(node: ir.Node) -> Float64Array | None:
    """The constant that a Max or Min compares with; None where it compares two activations."""
    held = [array for index in (0, 1) if (array := constant(node, index)) is not None]
    return held[0].astype(np.float64) if node.op_type in EXTREMES and held else None


def pads_of(node: ir.Node) -> tuple[tuple[int, int, int, int], float] | None:
    """((top, left, bottom, right), value) of a Pad of images with one constant; else None."""
    shape, widths, value = static_shape(node.inputs[0]), constant(node, 1), constant(node, 2)
    if shape is None or len(shape) != 4 or widths is None or constant(node, 3) is not None:
        return None
    whole = widths.size == 8 and widths.min() >= 0 and not widths[[0, 1, 4, 5]].any()
    if text(node, "mode", "constant") != "constant" or not whole:
        return None
    top, left, bottom, right = (int(widths[place]) for place in (2, 3, 6, 7))
    return (top, left, bottom, right), 0.0 if value is None else float(value.reshape(()))


def constant(node: ir.Node, index: int) -> AnyArray | None:
    """A constant input as an array, None where it is left out or computed."""
    value = node.inputs[index] if len(node.inputs) > index else None
    tensor = None if value is None else value.const_value
    return None if tensor is None else np.asarray(tensor.numpy())


def parameter(node: ir.Node, index: int) -> Float64Array:
    """A constant input of a layer in float64."""
    array = constant(node, index)
    assert array is not None
    return array.astype(np.float64)


def leaky_slope(node: ir.Node) -> float:
    """Of a LeakyRelu, as it states it."""
    return float(node.attributes["alpha"].as_float()) if "alpha" in node.attributes else 0.01


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute, or its default."""
    return str(node.attributes[name].as_string()) if name in node.attributes else default
