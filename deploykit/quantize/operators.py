"""Which integer operator a float node becomes: one row per ONNX operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Function, Window

CHANNELS = 1


class Kind(Enum):
    """Operators of the integer network, by the names that plan.json has for them."""

    CONV = "Conv"
    LINEAR = "Linear"
    ADD = "Add"
    MUL = "Mul"
    LOOKUP = "Lookup"
    GLOBAL_AVERAGE_POOL = "GlobalAveragePool"
    MAX_POOL = "MaxPool"
    FLATTEN = "Flatten"
    CLAMP = "Clamp"
    CONCAT = "Concat"
    SLICE = "Slice"
    GATHER = "Gather"
    REPEAT = "Repeat"
    DEPTH_TO_SPACE = "DepthToSpace"
    SPACE_TO_DEPTH = "SpaceToDepth"
    REARRANGE = "Rearrange"
    ISLAND = "Island"


SHARING = frozenset(
    (
        Kind.MAX_POOL, Kind.FLATTEN, Kind.CLAMP, Kind.CONCAT, Kind.SLICE, Kind.GATHER, Kind.REPEAT,
        Kind.DEPTH_TO_SPACE, Kind.SPACE_TO_DEPTH, Kind.REARRANGE,
    )
)  # fmt: skip
"""Operators whose tensors all have one quantization."""
FUSING = frozenset((Kind.CONV, Kind.LINEAR, Kind.ADD, Kind.MUL))
"""Operators whose output range does what a Relu or Clip behind them would."""
BINARY = frozenset((Kind.ADD, Kind.MUL))
WEIGHTED = frozenset((Kind.CONV, Kind.LINEAR))


def kind_of(node: ir.Node) -> Kind | None:
    """The integer operator of a node of a canonical, lowered graph; None where it has none."""
    rule = KINDS.get(node.op_type)
    return None if rule is None or node.domain not in {"", "ai.onnx"} else rule(node)


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
    if node.op_type == "Gelu" and _string(node, "approximate", "none") == "tanh":
        return Function.GELU_TANH
    return FUNCTIONS[node.op_type]


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
    mode = _string(node, "mode", "nearest")
    place = _string(node, "coordinate_transformation_mode", "half_pixel")
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or result is None or len(shape) != 4 or shape[:2] != result[:2]:
        return None
    whole = not result[2] % shape[2] and not result[3] % shape[3]
    # Centres of whole multiples never lie in the middle; corners need the pixel before.
    rounds = _string(node, "nearest_mode", "round_prefer_floor")
    centred = place in {"half_pixel", "pytorch_half_pixel"} and rounds.startswith("round")
    cornered = place == "asymmetric" and rounds == "floor"
    if mode != "nearest" or not whole or not (centred or cornered):
        return None
    return result[2] // shape[2], result[3] // shape[3]


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


def _conv(node: ir.Node) -> Kind | None:
    return Kind.CONV if _rank(node.inputs[0]) == 4 and constant(node, 1) is not None else None


def _linear(node: ir.Node) -> Kind | None:
    return Kind.LINEAR if constant(node, 1) is not None and "transB" in node.attributes else None


def _binary(node: ir.Node) -> Kind | None:
    """Two activations, or one and a constant; neither larger than the result."""
    output, read = static_shape(node.outputs[0]), activations(node)
    shapes = [static_shape(value) for value in read]
    if output is None or not read or len(node.inputs) != 2:
        return None
    if output not in shapes or any(shape is None or len(shape) != len(output) for shape in shapes):
        return None
    held = [constant(node, index) for index in (0, 1)]
    if any(array is not None and array.ndim > len(output) for array in held):
        return None
    return Kind.ADD if node.op_type == "Add" else Kind.MUL


def _max_pool(node: ir.Node) -> Kind | None:
    if _rank(node.inputs[0]) != 4 or static_shape(node.outputs[0]) is None:
        return None
    stated, used = node.attributes["pads"].as_ints(), window_of(node).pads
    # ceil_mode may let a window reach beyond the stated padding.
    return Kind.MAX_POOL if used[2] <= stated[2] and used[3] <= stated[3] else None


def _flatten(node: ir.Node) -> Kind | None:
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    whole = source is not None and output == (source[0], math.prod(source[1:]))
    return Kind.FLATTEN if whole else None


def _elu(node: ir.Node) -> Kind | None:
    """Of alpha 1: LiteRT knows no other."""
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
    return Kind.LOOKUP if alpha == 1.0 else None


def _gather(node: ir.Node) -> Kind | None:
    shape, indices = static_shape(node.inputs[0]), constant(node, 1)
    axis = int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
    if shape is None or indices is None or indices.ndim != 1 or axis % len(shape) != CHANNELS:
        return None
    return Kind.GATHER if indices.min(initial=0) >= 0 else None


def _depth_to_space(node: ir.Node) -> Kind | None:
    dcr = _string(node, "mode", "DCR") == "DCR" and _rank(node.inputs[0]) == 4
    return Kind.DEPTH_TO_SPACE if dcr else None


def _of_rank_4(kind: Kind) -> Callable[[ir.Node], Kind | None]:
    return lambda node: kind if _rank(node.inputs[0]) == 4 else None


def _alone(kind: Kind) -> Callable[[ir.Node], Kind | None]:
    return lambda node: kind if len(activations(node)) == 1 else None


def _string(node: ir.Node, name: str, default: str) -> str:
    return str(node.attributes[name].as_string()) if name in node.attributes else default


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


FUNCTIONS: Mapping[str, Function] = {
    "Elu": Function.ELU,
    "Gelu": Function.GELU,
    "Sigmoid": Function.SIGMOID,
    "Tanh": Function.TANH,
}

KINDS: Mapping[str, Callable[[ir.Node], Kind | None]] = {
    "Add": _binary,
    "Clip": _alone(Kind.CLAMP),
    "Concat": lambda node: Kind.CONCAT if len(activations(node)) == len(node.inputs) else None,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Elu": _elu,
    "Flatten": _flatten,
    "Gelu": lambda node: Kind.LOOKUP,
    "Gather": _gather,
    "Gemm": _linear,
    "GlobalAveragePool": _of_rank_4(Kind.GLOBAL_AVERAGE_POOL),
    "MaxPool": _max_pool,
    "Mul": _binary,
    "Relu": _alone(Kind.CLAMP),
    "Resize": lambda node: Kind.REPEAT if repeats_of(node) is not None else None,
    "Sigmoid": lambda node: Kind.LOOKUP,
    "Slice": lambda node: Kind.SLICE if spans_of(node) else None,
    "SpaceToDepth": _of_rank_4(Kind.SPACE_TO_DEPTH),
    "Split": lambda node: Kind.SLICE if spans_of(node) else None,
    "Tanh": lambda node: Kind.LOOKUP,
}
