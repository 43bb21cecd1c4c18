"""Which integer operator a float node becomes: one row per ONNX operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from enum import Enum

import numpy as np
import onnx_ir as ir

from deploykit.quantize.nodes import (
    activations,
    arg_axis,
    constant,
    gathered_axis,
    leaky_slope,
    pads_of,
    repeats_of,
    spans_of,
    text,
    window_of,
)
from deploykit.spec.network import static_shape
from deploykit.spec.whole_numbers import WHOLE, answer_of, table_rows

CHANNELS = 1
OF_NORMS = frozenset((0.5, -0.5, -1.0))
"""Exponents that divide by a deviation: eight bits of it would be few."""
STEEPEST = 127.0
"""Slope of a LEAKY_RELU that XNNPACK takes."""


class Kind(Enum):
    """Operators of the integer network, by the names that plan.json has for them."""

    CONV = "Conv"
    LINEAR = "Linear"
    ADD = "Add"
    MUL = "Mul"
    SUB = "Sub"
    MAXIMUM = "Maximum"
    MINIMUM = "Minimum"
    LOOKUP = "Lookup"
    GLOBAL_AVERAGE_POOL = "GlobalAveragePool"
    MAX_POOL = "MaxPool"
    FLATTEN = "Flatten"
    CLAMP = "Clamp"
    CONCAT = "Concat"
    SLICE = "Slice"
    GATHER = "Gather"
    EMBEDDING = "Embedding"
    ARG_MAX = "ArgMax"
    REPEAT = "Repeat"
    DEPTH_TO_SPACE = "DepthToSpace"
    SPACE_TO_DEPTH = "SpaceToDepth"
    LEAKY_RELU = "LeakyRelu"
    PAD = "Pad"
    RESHAPE = "Reshape"
    REARRANGE = "Rearrange"
    ISLAND = "Island"


SHARING = frozenset(
    (
        Kind.MAX_POOL, Kind.FLATTEN, Kind.CLAMP, Kind.CONCAT, Kind.SLICE, Kind.GATHER, Kind.REPEAT,
        Kind.DEPTH_TO_SPACE, Kind.SPACE_TO_DEPTH, Kind.MAXIMUM, Kind.MINIMUM, Kind.LEAKY_RELU,
        Kind.PAD, Kind.RESHAPE, Kind.REARRANGE,
    )
)  # fmt: skip
"""Operators whose tensors all have one quantization."""
JOINING = frozenset((Kind.CONCAT, Kind.MAXIMUM, Kind.MINIMUM))
"""Those of them that read several tensors."""
FUSING = frozenset((Kind.CONV, Kind.LINEAR, Kind.ADD, Kind.MUL, Kind.SUB))
"""Operators whose output range does what a Relu or Clip behind them would."""
BINARY = frozenset((Kind.ADD, Kind.MUL, Kind.SUB))
WEIGHTED = frozenset((Kind.CONV, Kind.LINEAR))


def kind_of(node: ir.Node) -> Kind | None:
    """The integer operator of a node of a canonical, lowered graph; None where it has none."""
    rule = KINDS.get(node.op_type)
    return None if rule is None or node.domain not in {"", "ai.onnx"} else rule(node)


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
    # Infinite constants, as masks of scores are, have no scale.
    if any(array is not None and not np.isfinite(array).all() for array in held):
        return None
    return Kind(node.op_type)


def _difference(node: ir.Node) -> Kind | None:
    """Of two activations; with a constant it is a sum (graph.lowering)."""
    return _binary(node) if len(activations(node)) == 2 else None


def _extreme(kind: Kind) -> Callable[[ir.Node], Kind | None]:
    """Of two activations of one shape, or of one and a constant that is no larger."""

    def rule(node: ir.Node) -> Kind | None:
        held = [array for index in (0, 1) if (array := constant(node, index)) is not None]
        if any(np.isinf(array).any() for array in held):
            return None
        if len(held) == 1 and len(node.inputs) == 2:
            output = static_shape(node.outputs[0])
            same = output is not None and static_shape(activations(node)[0]) == output
            return kind if same and held[0].ndim <= len(output or ()) else None
        shapes = {static_shape(value) for value in (*activations(node), *node.outputs)}
        alone = len(activations(node)) == 2 == len(node.inputs)
        return kind if alone and len(shapes) == 1 and None not in shapes else None

    return rule


def _max_pool(node: ir.Node) -> Kind | None:
    if _rank(node.inputs[0]) != 4 or static_shape(node.outputs[0]) is None:
        return None
    window = window_of(node)
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    # With ceil_mode a window may reach beyond the stated padding, but not lie outside of it.
    inside = all(pad < reach[place % 2] for place, pad in enumerate(window.pads))
    return Kind.MAX_POOL if inside else None


def _flatten(node: ir.Node) -> Kind | None:
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    whole = source is not None and output == (source[0], math.prod(source[1:]))
    return Kind.FLATTEN if whole else None


def _elu(node: ir.Node) -> Kind | None:
    """Of alpha 1: LiteRT knows no other."""
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
    return Kind.LOOKUP if alpha == 1.0 else None


def _power(node: ir.Node) -> Kind | None:
    """By one number; roots and quotients stay in the float islands of the norms that take them."""
    exponent = constant(node, 1)
    if exponent is None or exponent.size != 1 or len(activations(node)) != 1:
        return None
    number = float(exponent.reshape(()))
    return Kind.LOOKUP if math.isfinite(number) and number not in OF_NORMS else None


def _gather(node: ir.Node) -> Kind | None:
    """By constants along an axis, or of rows of a constant by a graph input [N] or [N, T]."""
    ids = node.inputs[1]
    if ids is not None and ids.const_value is None:
        given = ids.is_graph_input() and _rank(ids) in (1, 2)
        return Kind.EMBEDDING if given and table_rows(node, ids) is not None else None
    shape, indices = static_shape(node.inputs[0]), constant(node, 1)
    if shape is None or indices is None or indices.ndim != 1:
        return None
    within = gathered_axis(node) >= CHANNELS
    return Kind.GATHER if within and indices.min(initial=0) >= 0 else None


def _arg_max(node: ir.Node) -> Kind | None:
    """At the end of a network, of the first largest; of images along the channels."""
    shape = static_shape(node.inputs[0])
    last = "select_last_index" in node.attributes and node.attributes["select_last_index"].as_int()
    if shape is None or last or not any(answer_of(end) is node for end in _ends(node)):
        return None
    axis = arg_axis(node)
    return Kind.ARG_MAX if axis == CHANNELS or (axis > 0 and len(shape) < 4) else None


def _ends(node: ir.Node) -> Iterator[ir.Value]:
    """The graph outputs that a node computes, with one more node behind it at most."""
    readers = (use.node for use in node.outputs[0].uses())
    every = (*node.outputs, *(value for reader in readers for value in reader.outputs))
    return (value for value in every if value.is_graph_output() and value.dtype in WHOLE)


def _depth_to_space(node: ir.Node) -> Kind | None:
    dcr = text(node, "mode", "DCR") == "DCR" and _rank(node.inputs[0]) == 4
    return Kind.DEPTH_TO_SPACE if dcr else None


def _space_to_depth(node: ir.Node) -> Kind | None:
    shape, block = static_shape(node.inputs[0]), int(node.attributes["blocksize"].as_int())
    whole = shape is not None and len(shape) == 4 and not any(size % block for size in shape[2:])
    return Kind.SPACE_TO_DEPTH if whole else None


def _leaky_relu(node: ir.Node) -> Kind | None:
    return Kind.LEAKY_RELU if 0.0 < leaky_slope(node) <= STEEPEST else None


def _pad(node: ir.Node) -> Kind | None:
    return Kind.PAD if pads_of(node) is not None else None


def _reshape(node: ir.Node) -> Kind | None:
    """That adds or drops axes of length 1 behind the batch; to two axes it is a Flatten."""
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if source is None or output is None or max(len(source), len(output)) > 4:
        return None
    if len(source) > 2 and _flatten(node) is not None:
        return Kind.FLATTEN
    longer = [[size for size in shape[1:] if size != 1] for shape in (source, output)]
    apart = source[:1] == output[:1] and len(output) > 1 and longer[0] == longer[1]
    return Kind.RESHAPE if apart else None


def _of_rank_4(kind: Kind) -> Callable[[ir.Node], Kind | None]:
    return lambda node: kind if _rank(node.inputs[0]) == 4 else None


def _alone(kind: Kind) -> Callable[[ir.Node], Kind | None]:
    return lambda node: kind if len(activations(node)) == 1 else None


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


KINDS: Mapping[str, Callable[[ir.Node], Kind | None]] = {
    "Add": _binary,
    "ArgMax": _arg_max,
    "Clip": _alone(Kind.CLAMP),
    "Concat": lambda node: Kind.CONCAT if len(activations(node)) == len(node.inputs) else None,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Elu": _elu,
    "Erf": lambda node: Kind.LOOKUP,
    "Exp": lambda node: Kind.LOOKUP,
    "Flatten": _flatten,
    "Gelu": lambda node: Kind.LOOKUP,
    "Gather": _gather,
    "Gemm": _linear,
    "GlobalAveragePool": _of_rank_4(Kind.GLOBAL_AVERAGE_POOL),
    "LeakyRelu": _leaky_relu,
    "Max": _extreme(Kind.MAXIMUM),
    "MaxPool": _max_pool,
    "Min": _extreme(Kind.MINIMUM),
    "Mish": lambda node: Kind.LOOKUP,
    "Mul": _binary,
    "Pad": _pad,
    "Pow": _power,
    "Relu": _alone(Kind.CLAMP),
    "Reshape": _reshape,
    "Resize": lambda node: Kind.REPEAT if repeats_of(node) is not None else None,
    "Sigmoid": lambda node: Kind.LOOKUP,
    "Slice": lambda node: Kind.SLICE if spans_of(node) else None,
    "Softplus": lambda node: Kind.LOOKUP,
    "Softsign": lambda node: Kind.LOOKUP,
    "SpaceToDepth": _space_to_depth,
    "Split": lambda node: Kind.SLICE if spans_of(node) else None,
    "Squeeze": _reshape,
    "Sub": _difference,
    "Tanh": lambda node: Kind.LOOKUP,
    "ThresholdedRelu": lambda node: Kind.LOOKUP,
    "Unsqueeze": _reshape,
}
