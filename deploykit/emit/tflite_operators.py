"""The TFLite form of every operator of the integer network, the one that XNNPACK takes if any.

Conv               CONV_2D, kernel_ohwi with I = channels / groups;
                   DEPTHWISE_CONV_2D, kernel_1hwo, where groups = channels
Linear             FULLY_CONNECTED, weight [O, I]
Add, Mul           ADD, MUL
Lookup             LOGISTIC, TANH, ELU, GELU
MaxPool            MAX_POOL_2D
GlobalAveragePool  MEAN over H and W
Flatten            RESHAPE; its readers' weight columns are permuted, see tflite_layout
Clamp              MAXIMUM and MINIMUM with a constant: builtin kernels, fast and exact
                   (XNNPACK has neither in int8; RELU and RELU6 standing alone are slow)
Concat             CONCATENATION, of five at a time
Slice              SLICE, or STRIDED_SLICE where it steps
Gather             GATHER along the last axis
Repeat             RESIZE_NEAREST_NEIGHBOR
DepthToSpace       DEPTH_TO_SPACE
SpaceToDepth       SPACE_TO_DEPTH
Rearrange, Island  see tflite_regions
pads               SAME, VALID, or a PAD before the window, see tflite_padding
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np

from deploykit.emit.tflite_graph import Options, TfliteGraph, TfliteQuantization, per_tensor
from deploykit.emit.tflite_layout import file_axis
from deploykit.emit.tflite_lowering import (
    channel_major,
    columns_as_hwc,
    convolution_form,
    limit,
    mean_over_pixels,
    padded,
    pool,
    require_dense,
    reshape,
)
from deploykit.emit.tflite_regions import write_island, write_rearrange
from deploykit.spec.arrays import Int8Array, Int32Array
from deploykit.spec.operators import (
    Add,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Flatten,
    Function,
    Gather,
    GlobalAveragePool,
    IntegerWeight,
    Island,
    Linear,
    Lookup,
    MaxPool,
    Mul,
    Operator,
    Rearrange,
    Repeat,
    Slice,
    SpaceToDepth,
)
from deploykit.spec.quantized import ActivationTensor, Batch, QuantizedNetwork, int_range


@dataclass(frozen=True)
class Site:
    """What lowering an operator needs: where its tensors are, and the graph it adds to.

    index: by tensor name of the network; flattened: see tflite_layout.flattened_order. constants:
    indices by name, as they are written.
    """

    network: QuantizedNetwork
    graph: TfliteGraph
    index: Mapping[str, int]
    flattened: Mapping[str, tuple[int, int, int]]
    constants: dict[str, int] = field(default_factory=dict)


FUNCTION_CODES: Mapping[Function, tuple[str, Options | None]] = {
    Function.SIGMOID: ("LOGISTIC", None),
    Function.TANH: ("TANH", None),
    Function.ELU: ("ELU", None),
    Function.GELU: ("GELU", Options("GeluOptions", {"approximate": False})),
    Function.GELU_TANH: ("GELU", Options("GeluOptions", {"approximate": True})),
}


WHOLE_BATCH = 1
"""endMask of a STRIDED_SLICE that takes the first axis to its end, whatever it states."""

MOST_JOINED = 5
"""Inputs of a CONCATENATION that XNNPACK takes, in LiteRT 2.3."""


def lower(operator: Operator, site: Site) -> None:
    """Append one operator of the network to the graph."""
    match operator:
        case Conv():
            _conv(operator, site)
        case Linear():
            _linear(operator, site)
        case Add() | Mul():
            sides = (_operand(site, operator.left), _operand(site, operator.right))
            kind = type(operator).__name__
            output = site.index[operator.output]
            site.graph.operator(kind.upper(), sides, output, Options(f"{kind}Options"))
        case Lookup():
            code, options = FUNCTION_CODES[operator.function]
            source, output = site.index[operator.input], site.index[operator.output]
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
            _concat(operator, site)
        case Slice():
            _slice(operator, site)
        case Gather():
            _gather(operator, site)
        case Repeat():
            _repeat(operator, site)
        case DepthToSpace():
            options = Options("DepthToSpaceOptions", {"blockSize": operator.block})
            source, output = site.index[operator.input], site.index[operator.output]
            site.graph.operator("DEPTH_TO_SPACE", (source,), output, options)
        case SpaceToDepth():
            options = Options("SpaceToDepthOptions", {"blockSize": operator.block})
            source, output = site.index[operator.input], site.index[operator.output]
            site.graph.operator("SPACE_TO_DEPTH", (source,), output, options)
        case Rearrange():
            source, output = site.index[operator.input], site.index[operator.output]
            write_rearrange(operator, site.network, site.graph, source, output)
        case Island():
            inputs = [site.index[name] for name in operator.inputs]
            output = site.index[operator.output]
            write_island(operator, site.network, site.graph, inputs, output)
        case _:
            assert_never(operator)


def _conv(operator: Conv, site: Site) -> None:
    source = site.network.tensors[operator.input]
    output = site.index[operator.output]
    data, padding = padded(
        site.graph, site.index[operator.input], output, operator.window, operator.output
    )
    kernel, channels = operator.weight.values, source.shape[1]
    form = convolution_form(kernel, operator.window, operator.groups, channels, padding)
    weight = _weight(site, operator.weight, form.kernel, form.output_axis)
    bias = _bias(site, operator.name, operator.bias, source, operator.weight)
    site.graph.operator(form.code, (data, weight, bias), output, form.options)


def _linear(operator: Linear, site: Site) -> None:
    source = site.network.tensors[operator.input]
    stored = operator.weight.values
    if operator.input in site.flattened:
        stored = columns_as_hwc(stored, site.flattened[operator.input])
    weight = _weight(site, operator.weight, stored, 0)
    bias = _bias(site, operator.name, operator.bias, source, operator.weight)
    inputs = (site.index[operator.input], weight, bias)
    output = site.index[operator.output]
    site.graph.operator("FULLY_CONNECTED", inputs, output, Options("FullyConnectedOptions"))


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


def _concat(operator: Concat, site: Site) -> None:
    """In parts of MOST_JOINED, which XNNPACK takes at a time."""
    output = site.index[operator.output]
    axis = _axis(site, operator.output, operator.axis)
    options = Options("ConcatenationOptions", {"axis": axis})
    held = [site.index[name] for name in operator.inputs]
    while len(held) > MOST_JOINED:
        first = tuple(held[:MOST_JOINED])
        shape = list(site.graph.tensors[output].shape)
        shape[axis] = sum(site.graph.tensors[index].shape[axis] for index in first)
        part = site.graph.like(output, f"{operator.output}/part", tuple(shape))
        site.graph.operator("CONCATENATION", first, part, options)
        held = [part, *held[MOST_JOINED:]]
    site.graph.operator("CONCATENATION", tuple(held), output, options)


def _slice(operator: Slice, site: Site) -> None:
    source, output = site.index[operator.input], site.index[operator.output]
    shape = site.graph.tensors[source].shape
    axis = _axis(site, operator.input, operator.axis)
    begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], end[axis], strides[axis] = operator.start, operator.stop, operator.step
    if operator.step == 1:
        sizes = site.graph.any_batch([stop - start for start, stop in zip(begin, end, strict=True)])
        start, size = site.graph.integers("begin", begin), site.graph.integers("size", sizes)
        site.graph.operator("SLICE", (source, start, size), output, Options("SliceOptions"))
        return
    places = tuple(
        site.graph.integers(name, numbers)
        for name, numbers in (("begin", begin), ("end", end), ("strides", strides))
    )
    dynamic = site.network.batch is Batch.DYNAMIC
    options = Options("StridedSliceOptions", {"endMask": WHOLE_BATCH} if dynamic else {})
    site.graph.operator("STRIDED_SLICE", (source, *places), output, options)


def _gather(operator: Gather, site: Site) -> None:
    source, output = site.index[operator.input], site.index[operator.output]
    indices = site.graph.integers("indices", operator.indices)
    options = Options("GatherOptions", {"axis": _axis(site, operator.input, 1)})
    site.graph.operator("GATHER", (source, indices), output, options)


def _repeat(operator: Repeat, site: Site) -> None:
    source, output = site.index[operator.input], site.index[operator.output]
    size = site.graph.integers("size", site.graph.tensors[output].shape[1:3])
    options = Options("ResizeNearestNeighborOptions")
    site.graph.operator("RESIZE_NEAREST_NEIGHBOR", (source, size), output, options)


def _axis(site: Site, tensor: str, axis: int) -> int:
    """An axis of the network where the file has it."""
    return file_axis(axis, len(site.network.tensors[tensor].shape))


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


def _weight(site: Site, weight: IntegerWeight, stored: Int8Array, dimension: int) -> int:
    scale = np.asarray(weight.scale, dtype=np.float32)
    quantization = TfliteQuantization(scale, 0, dimension)
    return site.graph.constant(weight.name, np.ascontiguousarray(stored), quantization)


def _bias(
    site: Site, name: str, bias: Int32Array, source: ActivationTensor, weight: IntegerWeight
) -> int:
    """Bias in steps of sx * sw, the product taken in float32 as the runtimes take it."""
    scale = np.float32(source.quantization.scale) * weight.scale.astype(np.float32)
    quantization = TfliteQuantization(np.asarray(scale, dtype=np.float32), 0)
    return site.graph.constant(f"{name}/bias", bias.astype(np.int32), quantization)
