"""Where a QuantizedNetwork's arrays lie inside a .tflite file, and the way there and back.

network                      file
[N, C, H, W]                 [N, H, W, C]
flatten(C, H, W) -> [N, F]   flatten(H, W, C) -> [N, F], where only Linears read it
[N, F]                       [N, F]
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Int8Array, Tensors
from deploykit.spec.operators import Clamp, Flatten, Linear, Operator, operator_inputs
from deploykit.spec.quantized import IoType, Quantization, QuantizedNetwork, as_uint8

Shape = tuple[int, ...]


class TfliteLayout(Enum):
    """Layout of the file's own rank-4 inputs and outputs; inside, every file is NHWC."""

    NHWC = "nhwc"
    NCHW = "nchw"


def file_shape(shape: Shape) -> Shape:
    """file_shape((1, 3, 8, 6)) -> (1, 8, 6, 3); other ranks stay as they are."""
    if len(shape) != 4:
        return shape
    batch, channels, height, width = shape
    return (batch, height, width, channels)


def file_axis(axis: int, rank: int) -> int:
    """Where the file has an axis of the network. file_axis(1, 4) -> 3"""
    return (0, 3, 1, 2)[axis] if rank == 4 else axis


def port_shape(shape: Shape, layout: TfliteLayout) -> Shape:
    """Shape that a graph input or output has in the file."""
    return file_shape(shape) if layout is TfliteLayout.NHWC else shape


def is_transposed(shape: Shape, layout: TfliteLayout) -> bool:
    """Whether a TRANSPOSE stands between the port and the integer tensor of this shape."""
    return layout is TfliteLayout.NCHW and len(shape) == 4


def flattened_order(network: QuantizedNetwork) -> Mapping[str, tuple[int, int, int]]:
    """Tensors that the file keeps flattened as H, W, C, each with the (C, H, W) it comes from.

    A flattened tensor may keep that order when only Linears read it, directly or through Clamps,
    because the permutation then moves into the columns of their weights.
    """
    readers: dict[str, list[Operator]] = {}
    for operator in network.operators:
        for name in operator_inputs(operator):
            readers.setdefault(name, []).append(operator)
    public = {port.tensor for port in network.outputs}

    def ends_in_linears(name: str) -> bool:
        return name not in public and all(
            isinstance(reader, Linear)
            or (isinstance(reader, Clamp) and ends_in_linears(reader.output))
            for reader in readers.get(name, ())
        )

    order: dict[str, tuple[int, int, int]] = {}
    for operator in network.operators:
        if isinstance(operator, Clamp) and operator.input in order:
            order[operator.output] = order[operator.input]
        if not isinstance(operator, Flatten):
            continue
        match network.tensors[operator.input].shape:
            case (_, channels, height, width) if channels > 1 and height * width > 1:
                if ends_in_linears(operator.output):
                    order[operator.output] = (channels, height, width)
    return order


def tensor_names(
    network: QuantizedNetwork, layout: TfliteLayout = TfliteLayout.NHWC
) -> Mapping[str, str]:
    """Name in the file of every integer tensor of the network, whole numbers among them.

    A tensor that is itself a port of the file carries the port's public name. Any other keeps its
    own name, or takes the suffix "_int8" where a port that is a tensor of its own has that name.
    """
    names: dict[str, str] = {}
    separate: set[str] = set()
    for port in (*network.inputs, *network.outputs):
        if port.tensor in network.indices:
            names[port.tensor] = port.name
            continue
        shape = network.tensors[port.tensor].shape
        if network.io is IoType.INT8 and not is_transposed(shape, layout):
            names.setdefault(port.tensor, port.name)
        else:
            separate.add(port.name)
    taken = separate | set(names.values())
    for tensor in network.tensors:
        if tensor in names:
            continue
        name = tensor
        while name in taken:
            name += "_int8"
        names[tensor] = name
        taken.add(name)
    return names


def to_tflite_layout(
    network: QuantizedNetwork, inputs: Tensors, layout: TfliteLayout = TfliteLayout.NHWC
) -> Tensors:
    """Inputs by port name in the element type and layout of the file.

    inputs: [N, C, H, W] or [N, F]; int8 arrays hold the network's own integers and are converted
    to the file's element type, arrays that have that type already are only laid out. Whole
    numbers become int32.
    """
    laid: dict[str, AnyArray] = {}
    for port in network.inputs:
        if port.name not in inputs:
            raise DataError(
                f"No values were given for the input {port.name!r}; given were {sorted(inputs)}."
            )
        values, shape = inputs[port.name], network.shape(port.tensor)
        if values.shape[1:] != shape[1:]:
            raise DataError(
                f"Input {port.name!r} has shape {list(values.shape)} where the network takes "
                f"{['N', *shape[1:]]}; pass it as NCHW."
            )
        if port.tensor in network.indices:
            laid[port.name] = np.ascontiguousarray(values, dtype=np.int32)
            continue
        tensor = network.tensors[port.tensor]
        if values.dtype == np.int8:
            values = _from_integers(values, tensor.quantization, network.io)
        if values.ndim == 4 and layout is TfliteLayout.NHWC:
            values = values.transpose(0, 2, 3, 1)
        laid[port.name] = np.ascontiguousarray(values)
    return laid


def from_tflite_layout(
    network: QuantizedNetwork, raw: Tensors, layout: TfliteLayout = TfliteLayout.NHWC
) -> Mapping[str, AnyArray]:
    """The network's integer tensors [N, C, H, W] or [N, F] by their own names.

    raw: what a probe file returned, by tensor name and in the file's layout. Helper tensors of the
    file (the output of a PAD, say) have no name in the network and are dropped.
    """
    order = flattened_order(network)
    tensors: dict[str, AnyArray] = {}
    for tensor, name in tensor_names(network, layout).items():
        if name not in raw:
            continue
        values = raw[name]
        if tensor in network.indices:
            held = network.indices[tensor]
            # One channel at most: whatever the layout, the elements lie in one order.
            tensors[tensor] = values.reshape(-1, *held.shape[1:]).astype(held.dtype)
            continue
        if tensor in order:
            channels, height, width = order[tensor]
            unflattened = values.reshape(-1, height, width, channels)
            values = unflattened.transpose(0, 3, 1, 2).reshape(values.shape)
        elif values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)
        tensors[tensor] = np.ascontiguousarray(values)
    return tensors


def ports_from_tflite_layout(
    network: QuantizedNetwork, outputs: Tensors, layout: TfliteLayout = TfliteLayout.NHWC
) -> Tensors:
    """Graph outputs by port name as [N, C, H, W] or [N, F], in the file's element type."""
    if layout is TfliteLayout.NCHW:
        return outputs
    return {
        name: values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
        for name, values in outputs.items()
    }


def _from_integers(values: Int8Array, quantization: Quantization, io: IoType) -> AnyArray:
    match io:
        case IoType.FLOAT:
            return quantization.dequantize(values)
        case IoType.INT8:
            return values
        case IoType.UINT8:
            return as_uint8(values)
