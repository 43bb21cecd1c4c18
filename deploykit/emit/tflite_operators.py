"""The TFLite form of every operator of the integer network, the one that XNNPACK takes if any.

Conv               CONV_2D, kernel_ohwi with I = channels / groups;
                   DEPTHWISE_CONV_2D, kernel_1hwo, where groups = channels;
                   FULLY_CONNECTED, weight [O, I], where it is 1x1 and has INT4 or INT2 weights:
                   XNNPACK takes those there, and in no CONV_2D
Linear             FULLY_CONNECTED, weight [O, I]
Add, Mul, Sub      ADD, MUL, SUB
Maximum, Minimum   MAXIMUM, MINIMUM: builtin kernels, fast and exact (0.006 ms for 200,704)
Lookup             LOGISTIC, TANH, ELU, GELU, EXP, or GATHER of a table by CAST integers
MaxPool            MAX_POOL_2D
GlobalAveragePool  MEAN over H and W
Flatten            RESHAPE; its readers' weight columns are permuted, see tflite_layout
Clamp              MAXIMUM and MINIMUM with a constant: builtin kernels, fast and exact
                   (XNNPACK has neither in int8; RELU and RELU6 standing alone are slow)
Concat             CONCATENATION, of five at a time
Slice              SLICE, or STRIDED_SLICE where it steps
Gather             GATHER along an axis
Embedding          GATHER of the table's rows by the port itself
ArgMax             ARG_MAX, and a RESHAPE where the axis stays
Repeat             RESIZE_NEAREST_NEIGHBOR
DepthToSpace       DEPTH_TO_SPACE
SpaceToDepth       SPACE_TO_DEPTH
LeakyRelu          LEAKY_RELU: equal steps above zero
Pad                PADV2; PAD, which XNNPACK takes, where it holds zeros and no window reads it
Reshape            RESHAPE, between TRANSPOSEs where the file has another order
Rearrange, Island  see tflite_regions
pads               SAME, VALID, or a PAD before the window, see tflite_padding
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import numpy as np

from deploykit.emit.tflite_graph import Options, per_tensor
from deploykit.emit.tflite_lowering import (
    channel_major,
    limit,
    mean_over_pixels,
    pad_with,
    padded,
    pool,
    require_dense,
    reshape,
    reshape_channel_major,
)
from deploykit.emit.tflite_moves import (
    write_arg_max,
    write_concat,
    write_embedding,
    write_gather,
    write_repeat,
    write_slice,
)
from deploykit.emit.tflite_regions import write_island, write_rearrange
from deploykit.emit.tflite_site import Site
from deploykit.emit.tflite_weighted import write_conv, write_linear
from deploykit.spec.functions import called_table, table
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
    Function,
    Gather,
    GlobalAveragePool,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Operator,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Sub,
)
from deploykit.spec.quantized import UINT8_SHIFT, int_range

FUNCTION_CODES: Mapping[Function, tuple[str, Options | None]] = {
    Function.SIGMOID: ("LOGISTIC", None),
    Function.TANH: ("TANH", None),
    Function.ELU: ("ELU", None),
    Function.EXP: ("EXP", Options("ExpOptions")),
    Function.GELU: ("GELU", Options("GeluOptions", {"approximate": False})),
    Function.GELU_TANH: ("GELU", Options("GeluOptions", {"approximate": True})),
}


CAST_TO_INT32: Mapping[str, int] = {"inDataType": 3, "outDataType": 2}
"""uint8 to int32, by the schema's numbers of element types."""


def lower(operator: Operator, site: Site) -> None:
    """Append one operator of the network to the graph."""
    match operator:
        case Conv():
            write_conv(operator, site)
        case Linear():
            write_linear(operator, site)
        case Add() | Mul() | Sub():
            sides = (_operand(site, operator.left), _operand(site, operator.right))
            kind = type(operator).__name__
            output = site.index[operator.output]
            site.graph.operator(kind.upper(), sides, output, Options(f"{kind}Options"))
        case Maximum() | Minimum():
            pair = (_operand(site, operator.left), _operand(site, operator.right))
            comparing = Options("MaximumMinimumOptions")
            code, output = type(operator).__name__.upper(), site.index[operator.output]
            site.graph.operator(code, pair, output, comparing)
        case Lookup():
            source, output = site.index[operator.input], site.index[operator.output]
            if operator.function not in FUNCTION_CODES:
                _tabulated(operator, site)
                return
            code, options = FUNCTION_CODES[operator.function]
            site.graph.operator(code, (source,), output, options)
        case MaxPool():
            _max_pool(operator, site)
        case GlobalAveragePool():
            source = site.index[operator.input]
            mean_over_pixels(site.graph, source, site.index[operator.output])
        case Flatten():
            _flatten(operator, site)
        case Clamp():
            _clamp(operator, site)
        case Concat():
            write_concat(operator, site)
        case Slice():
            write_slice(operator, site)
        case Gather():
            write_gather(operator, site)
        case Repeat():
            write_repeat(operator, site)
        case DepthToSpace():
            options = Options("DepthToSpaceOptions", {"blockSize": operator.block})
            source, output = site.index[operator.input], site.index[operator.output]
            site.graph.operator("DEPTH_TO_SPACE", (source,), output, options)
        case SpaceToDepth():
            options = Options("SpaceToDepthOptions", {"blockSize": operator.block})
            source, output = site.index[operator.input], site.index[operator.output]
            site.graph.operator("SPACE_TO_DEPTH", (source,), output, options)
        case LeakyRelu():
            options = Options("LeakyReluOptions", {"alpha": operator.slope / 256})
            source, output = site.index[operator.input], site.index[operator.output]
            site.graph.operator("LEAKY_RELU", (source,), output, options)
        case Pad():
            source, output = site.index[operator.input], site.index[operator.output]
            zero = site.network.tensors[operator.input].quantization.zero_point
            plain = operator.fill == zero and not _read_by_windows(operator.output, site)
            fill = None if plain else operator.fill
            pad_with(site.graph, source, output, operator.pads, fill, operator.output)
        case Reshape():
            source, output = site.index[operator.input], site.index[operator.output]
            reshape_channel_major(site.graph, source, output, operator.output)
        case Embedding():
            write_embedding(operator, site)
        case ArgMax():
            write_arg_max(operator, site)
        case Rearrange():
            source, output = site.index[operator.input], site.index[operator.output]
            write_rearrange(operator, site.network, site.graph, source, output)
        case Island():
            inputs = [site.index[name] for name in operator.inputs]
            output = site.index[operator.output]
            write_island(operator, site.network, site.graph, inputs, output)
        case _:
            assert_never(operator)


def _tabulated(operator: Lookup, site: Site) -> None:
    """GATHER of the function's 256 integers; indices begin at 0, as uint8 does."""
    source, output = (site.network.tensors[name] for name in (operator.input, operator.output))
    index, graph, name = site.index[operator.input], site.graph, operator.output
    shape, given = graph.tensors[index].shape, source.quantization
    shifted = replace(given, zero_point=given.zero_point + UINT8_SHIFT)
    unsigned = graph.activation(f"{name}/unsigned", shape, shifted, np.uint8)
    graph.operator("QUANTIZE", (index,), unsigned, Options("QuantizeOptions"))
    places = graph.activation(f"{name}/places", shape, None, np.int32)
    graph.operator("CAST", (unsigned,), places, Options("CastOptions", CAST_TO_INT32))
    function, parameter = operator.function, operator.parameter
    entries = table(function, given, output.quantization, parameter)
    called = f"{name}/{called_table(function, parameter)}"
    held = graph.constant(called, entries, per_tensor(output.quantization))
    options = Options("GatherOptions", {"axis": 0})
    graph.operator("GATHER", (held, places), site.index[operator.output], options)


def _read_by_windows(tensor: str, site: Site) -> bool:
    """Whether a window reads a tensor: it would take a PAD before it for its own."""
    return any(
        isinstance(operator, Conv | MaxPool) and operator.input == tensor
        for operator in site.network.operators
    )


def _max_pool(operator: MaxPool, site: Site) -> None:
    require_dense(operator.window, operator.name)
    source, result = site.index[operator.input], site.index[operator.output]
    lowest, _ = int_range(8)
    zero_point = site.network.tensors[operator.input].quantization.zero_point
    fill = None if zero_point == lowest else lowest
    data, padding = padded(site.graph, source, result, operator.window, operator.output, fill)
    pool(site.graph, "MAX_POOL_2D", data, result, operator.window, padding)


def _flatten(operator: Flatten, site: Site) -> None:
    data = site.index[operator.input]
    if operator.output not in site.flattened:
        data = channel_major(site.graph, data, operator.output)
    reshape(site.graph, data, site.index[operator.output])


def _clamp(operator: Clamp, site: Site) -> None:
    """A bound at the end of the integers needs no operator; one operator is written in any case."""
    low, high = int_range(8)
    steps: list[tuple[str, int]] = []
    if operator.high >= high or operator.low > low:
        steps.append(("MAXIMUM", max(operator.low, low)))
    if operator.high < high:
        steps.append(("MINIMUM", operator.high))
    source, result = site.index[operator.input], site.index[operator.output]
    limit(site.graph, source, result, operator.output, steps)


def _operand(site: Site, name: str) -> int:
    """Index of an activation, or of a constant, which is stored once."""
    if name not in site.network.constants:
        return site.index[name]
    if name not in site.constants:
        held = site.network.constants[name]
        values = held.values
        if values.ndim == 4:
            values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        site.constants[name] = site.graph.constant(name, values, per_tensor(held.quantization))
    return site.constants[name]
