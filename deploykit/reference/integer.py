"""The integer semantics that every written file has to reproduce, in numpy.

    Conv, Linear       acc = sum (x - zx) * w + bias                      int32, exact
                       m   = (sx * sw) / sy                               float32, in this order
                       y   = clip(rint(float32(acc) * m) + zy, -128, 127)
    Add, Sub, Mul      see binary
    Lookup             see spec.functions
    GlobalAveragePool  y   = clip(rint(float32(sum (x - zx)) * (sx / (sy * (H * W)))) + zy, ...)
    LeakyRelu          y   = x, or z + ((x - z) * slope + 128 >> 8) below z
    Embedding          y   = table[x]
    ArgMax             y   = the first i of the largest x[i]
    Maximum, Minimum, MaxPool, Flatten, Clamp, Concat, Slice, Gather, Repeat, DepthToSpace,
    SpaceToDepth, Pad, Reshape
                       move or compare integers only
    Rearrange, Island  see regions

rint rounds half to even; products and quotients with a scale in them are float32.

Where the two runtimes' own rules differ, the reference follows one of them exactly, so that the
planner only has to move scales until the other agrees. GlobalAveragePool is the rule of ONNX
Runtime (mlas/lib/qlgavgpool.cpp): it never differs, LiteRT only on ties, which need simple
fractions between the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from deploykit.errors import DataError
from deploykit.reference.accumulate import accumulate_linear, convolution_sums
from deploykit.reference.binary import add, mul, sub
from deploykit.reference.convolve import chunks
from deploykit.reference.lookup import leaky_relu, lookup
from deploykit.reference.moves import (
    concat,
    depth_to_space,
    gather,
    pad_pixels,
    repeat,
    slice_,
    space_to_depth,
)
from deploykit.reference.numbers import arg_max, checked_numbers, embedding
from deploykit.reference.regions import island, rearrange
from deploykit.reference.requantize import requantize
from deploykit.reference.window import taps
from deploykit.spec.arrays import AnyArray, Int8Array, Tensors
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
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
    operator_inputs,
)
from deploykit.spec.parallel import in_parallel
from deploykit.spec.quantized import (
    ActivationTensor,
    ConstantTensor,
    Quantization,
    QuantizedNetwork,
)
from deploykit.spec.requantize import multiplier


def run(network: QuantizedNetwork, inputs: Tensors) -> dict[str, AnyArray]:
    """Every activation int8 [N, ...] by tensor name, the inputs' own tensors included.

    inputs: by port name, int8 [N, ...] already quantized, whole numbers as they are; N need not be
    the network's batch. A tensor that holds several rows for a sample holds the samples' rows one
    behind another.
    """
    tensors: dict[str, AnyArray] = {}
    for port in network.inputs:
        if port.name not in inputs:
            raise DataError(
                f"No values were given for the input {port.name!r}; given were {sorted(inputs)}."
            )
        if port.tensor in network.indices:
            held = network.indices[port.tensor]
            tensors[port.tensor] = checked_numbers(inputs[port.name], held)
        else:
            tensors[port.tensor] = _checked(inputs[port.name], network.tensors[port.tensor])
    for operator in network.operators:
        tensors[operator.output] = run_operator(operator, network, tensors)
    return tensors


def run_operator(operator: Operator, network: QuantizedNetwork, tensors: Tensors) -> AnyArray:
    """The integers of one operator's output, from the integers of the tensors that it reads."""
    read = [name for name in operator_inputs(operator) if name not in network.constants]
    if not _takes_one_sample(operator, network):
        return _run_operator(operator, network, tensors)
    batch = network.shape(network.inputs[0].tensor)[0]
    rows = {name: network.shape(name)[0] // batch for name in (*read, operator.output)}
    samples = len(tensors[read[0]]) // rows[read[0]]
    full = {name: _filled(tensors[name], rows[name], samples, batch) for name in read}
    passes = -(-samples // batch)
    parts = {name: np.split(values, passes) for name, values in full.items()}
    found = np.concatenate(
        [
            _run_operator(operator, network, {name: part[i] for name, part in parts.items()})
            for i in range(passes)
        ]
    )
    return found[: samples * rows[operator.output]]


def _filled(values: AnyArray, rows: int, samples: int, batch: int) -> AnyArray:
    """[samples * rows, ...] with the last sample's rows repeated until samples fill batches."""
    lacking = -samples % batch
    return np.concatenate([values, *[values[len(values) - rows :]] * lacking])


def _takes_one_sample(operator: Operator, network: QuantizedNetwork) -> bool:
    """Whether an operator means something only for the batch that the network states.

    Every tensor holds its samples in front, as many rows for each.
    """
    if isinstance(operator, Rearrange | Island):
        return True
    touched = (*operator_inputs(operator), operator.output)
    lengths = {network.tensors[name].shape[0] for name in touched if name in network.tensors}
    return lengths != {network.shape(network.inputs[0].tensor)[0]}


def _run_operator(operator: Operator, network: QuantizedNetwork, tensors: Tensors) -> AnyArray:
    if isinstance(operator, ArgMax):
        return arg_max(tensors[operator.input], operator, network.indices[operator.output])
    into = network.tensors[operator.output].quantization
    match operator:
        case Conv():
            source = network.tensors[operator.input].quantization
            return conv(operator, tensors[operator.input], source, into)
        case Linear():
            source = network.tensors[operator.input].quantization
            sums = accumulate_linear(operator, tensors[operator.input], source)
            return requantize(
                sums, multiplier(source.scale, operator.weight.scale, into.scale), into
            )
        case Add() | Mul() | Sub():
            combine = {Add: add, Mul: mul, Sub: sub}[type(operator)]
            left, right = (
                _operand(name, network, tensors) for name in (operator.left, operator.right)
            )
            return combine(*left, *right, into)
        case Lookup():
            source = network.tensors[operator.input].quantization
            function, parameter = operator.function, operator.parameter
            return lookup(tensors[operator.input], function, source, into, parameter)
        case Maximum():
            return np.maximum(*_compared(operator, network, tensors))
        case Minimum():
            return np.minimum(*_compared(operator, network, tensors))
        case MaxPool():
            return max_pool(tensors[operator.input], operator)
        case GlobalAveragePool():
            source = network.tensors[operator.input].quantization
            return global_average_pool(tensors[operator.input], source, into)
        case Flatten():
            values: Int8Array = tensors[operator.input]
            return values.reshape(values.shape[0], -1)
        case Clamp():
            return np.clip(tensors[operator.input], np.int8(operator.low), np.int8(operator.high))
        case Concat():
            return concat([tensors[name] for name in operator.inputs], operator)
        case Slice():
            return slice_(tensors[operator.input], operator)
        case Gather():
            return gather(tensors[operator.input], operator)
        case Repeat():
            return repeat(tensors[operator.input], operator)
        case DepthToSpace():
            return depth_to_space(tensors[operator.input], operator)
        case SpaceToDepth():
            return space_to_depth(tensors[operator.input], operator)
        case LeakyRelu():
            return leaky_relu(tensors[operator.input], operator.slope, into)
        case Pad():
            return pad_pixels(tensors[operator.input], operator)
        case Reshape():
            held: Int8Array = tensors[operator.input]
            return held.reshape(held.shape[0], *network.tensors[operator.output].shape[1:])
        case Embedding():
            return embedding(tensors[operator.input], operator)
        case Rearrange():
            return rearrange(operator, tensors[operator.input])
        case Island():
            sources = [network.tensors[name].quantization for name in operator.inputs]
            return island(operator, [tensors[name] for name in operator.inputs], sources, into)
        case _:
            assert_never(operator)


def conv(operator: Conv, values: Int8Array, source: Quantization, into: Quantization) -> Int8Array:
    """[N, C, H, W] -> [N, O, H', W'], a bounded number of images at a time."""
    scale = multiplier(source.scale, operator.weight.scale[:, None, None], into.scale)
    accumulate = convolution_sums(operator, source)
    parts = in_parallel(
        lambda part: requantize(accumulate(values[part]), scale, into),
        chunks(values.shape, operator.window),
    )
    return np.concatenate(parts)


def global_average_pool(values: Int8Array, source: Quantization, into: Quantization) -> Int8Array:
    """Mean over the last two axes [N, C, H, W] -> [N, C, 1, 1], from the exact sum."""
    area = values.shape[2] * values.shape[3]
    sums = values.sum(axis=(2, 3), keepdims=True, dtype=np.int32)
    sums -= np.int32(area * source.zero_point)
    scale = np.float32(source.scale) / (np.float32(into.scale) * np.float32(area))
    return requantize(sums, np.asarray(scale, dtype=np.float32), into)


def max_pool(values: Int8Array, operator: MaxPool) -> Int8Array:
    """Largest integer under the window; padded positions never win."""
    best: Int8Array | None = None
    for _, seen in taps(values, operator.window, -128):
        best = seen.copy() if best is None else np.maximum(best, seen, out=best)
    if best is None:
        raise DataError(f"{operator.name}: the pooling window is empty.")
    return best


class ReferenceRunner:
    """IntegerRunner on this module."""

    name = "reference"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Mapping[str, Int8Array]:
        """Every activation as int8, by tensor name."""
        return run(network, inputs)


def _compared(
    operator: Maximum | Minimum, network: QuantizedNetwork, tensors: Tensors
) -> tuple[Int8Array, Int8Array]:
    """Both sides' integers."""
    left, right = (_operand(name, network, tensors) for name in (operator.left, operator.right))
    return left[0], right[0]


def _operand(
    name: str, network: QuantizedNetwork, tensors: Tensors
) -> tuple[Int8Array, Quantization]:
    """Integers of an activation or constant, and what they mean."""
    found = network.operand(name)
    values = found.values if isinstance(found, ConstantTensor) else tensors[name]
    return values, found.quantization


def _checked(values: AnyArray, tensor: ActivationTensor) -> Int8Array:
    """The values themselves, when they are int8 and of the tensor's shape but for the batch."""
    if values.dtype != np.int8 or values.shape[1:] != tensor.shape[1:]:
        expected = ", ".join(("N", *map(str, tensor.shape[1:])))
        raise DataError(
            f"{tensor.name}: expected int8 [{expected}], got {values.dtype} "
            f"{list(values.shape)}; quantize the input with the tensor's own scale first."
        )
    return values
