"""Windows, convolutions and linears of a .tflite file, with their weights and biases."""

from __future__ import annotations

import numpy as np

from deploykit.emit.packing import check_width
from deploykit.emit.tflite_parts import FileOperator
from deploykit.emit.tflite_views import (
    Order,
    ReaderState,
    View,
    constant_of,
    operand,
    refuse_activation,
)
from deploykit.spec.arrays import AnyArray, Float32Array, Int32Array
from deploykit.spec.carriers import Carriers
from deploykit.spec.operators import Conv, IntegerWeight, Linear, Window
from deploykit.spec.quantized import ActivationTensor

SAME, VALID = 0, 1


def read_conv(state: ReaderState, operator: FileOperator) -> None:
    """CONV_2D with kernel_ohwi, or DEPTHWISE_CONV_2D with kernel_1hwo."""
    view = state.image(operator, {"PAD": None})
    kernel = constant_of(operator, 1, np.dtype(np.int8), rank=4)
    channels = view.tensor.shape[1]
    if operator.code == "CONV_2D":
        activation, height_dilation, dimension, axes = 3, 5, 0, (0, 3, 1, 2)
    else:
        activation, height_dilation, dimension, axes = 4, 6, 3, (3, 0, 1, 2)
    refuse_activation(operator, activation)
    kernel_oihw = np.ascontiguousarray(kernel.transpose(axes))
    outputs, depth, *size = kernel_oihw.shape
    if operator.code == "CONV_2D":
        groups = channels // depth
        legal = groups * depth == channels
    else:
        groups = channels
        legal = depth == 1
    if not legal or outputs % groups:
        raise operator.refuse(f"its kernel {list(kernel.shape)} does not fit {channels} channels.")
    dilations = (
        operator.option(height_dilation, default=1),
        operator.option(height_dilation - 1, default=1),
    )
    strides = (operator.option(2), operator.option(1))
    window, height, width = read_window(operator, view, (size[0], size[1]), strides, dilations)
    weight = _weight(state, operator, kernel_oihw, dimension)
    bias = _bias(operator, view.tensor, weight)
    shape = (view.tensor.shape[0], outputs, height, width)
    result = state.define(operator.output, shape, Order.NHWC)
    state.operators.append(
        Conv(result.name, view.tensor.name, result.name, weight, bias, window, groups)
    )


def read_linear(state: ReaderState, operator: FileOperator) -> None:
    """FULLY_CONNECTED with weight [O, I]; columns go back from h, w, c to c, h, w order.

    Of an NHWC image it is a 1x1 convolution.
    """
    view = state.unpadded(operator)
    refuse_activation(operator, 0)
    stored = constant_of(operator, 1, np.dtype(np.int8), rank=2)
    image = view.order is Order.NHWC
    kept = view.order in (Order.FLAT, Order.FLAT_HWC) or (image and operator.option(2, "<?"))
    if operator.option(1, "<b") or not kept:
        raise operator.refuse(
            "deploykit reads plain weights on a rank-2 input, or on an NHWC image whose axes stay."
        )
    if stored.shape[1] != view.tensor.shape[1]:
        raise operator.refuse(
            f"its weight {list(stored.shape)} does not fit {view.tensor.shape[1]} inputs."
        )
    if image:
        _read_pointwise(state, operator, view, stored)
        return
    values = stored
    if view.unflattened is not None:
        channels, height, width = view.unflattened
        blocks = stored.reshape(-1, height, width, channels)
        values = np.ascontiguousarray(blocks.transpose(0, 3, 1, 2)).reshape(stored.shape)
    weight = _weight(state, operator, values, 0)
    bias = _bias(operator, view.tensor, weight)
    shape = (view.tensor.shape[0], stored.shape[0])
    result = state.define(operator.output, shape, Order.FLAT)
    state.operators.append(Linear(result.name, view.tensor.name, result.name, weight, bias))


def _read_pointwise(
    state: ReaderState, operator: FileOperator, view: View, stored: AnyArray
) -> None:
    weight = _weight(state, operator, stored.reshape(*stored.shape, 1, 1), 0)
    bias = _bias(operator, view.tensor, weight)
    batch, _, height, width = view.tensor.shape
    shape = (batch, len(stored), height, width)
    result = state.define(operator.output, shape, Order.NHWC)
    window = Window((1, 1))
    state.operators.append(Conv(result.name, view.tensor.name, result.name, weight, bias, window))


def read_window(
    operator: FileOperator,
    view: View,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[Window, int, int]:
    """The window with explicit pads (those of a PAD and those of SAME), output height and width."""
    if min(*kernel, *strides, *dilations) < 1:
        raise operator.refuse(f"kernel {kernel}, strides {strides}, dilations {dilations}.")
    padding = operator.option(0, "<b")
    if padding not in (SAME, VALID):
        raise operator.refuse(f"its padding has number {padding}; only SAME and VALID exist.")
    front: list[int] = []
    back: list[int] = []
    size: list[int] = []
    for axis in (0, 1):
        before, after = view.pads[axis], view.pads[axis + 2]
        length = view.tensor.shape[axis + 2] + before + after
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        count = (length - reach) // strides[axis] + 1
        if padding == SAME:
            count = -(-length // strides[axis])
            total = max((count - 1) * strides[axis] + reach - length, 0)
            before, after = before + total // 2, after + total - total // 2
        if count < 1:
            raise operator.refuse(f"its window {kernel} is larger than its input.")
        front.append(before)
        back.append(after)
        size.append(count)
    pads = (front[0], front[1], back[0], back[1])
    return Window(kernel, strides, pads, dilations), size[0], size[1]


def _weight(
    state: ReaderState, operator: FileOperator, values: AnyArray, dimension: int
) -> IntegerWeight:
    """values: [O, ...] in the network's order; scales per tensor are repeated per channel."""
    tensor = operand(operator, 1)
    outputs = values.shape[0]
    if tensor.scale.size not in (1, outputs) or np.any(tensor.zero_point):
        raise operator.refuse(
            f"its weight has {tensor.scale.size} scales for {outputs} channels, or a zero point."
        )
    if tensor.scale.size > 1 and tensor.dimension != dimension:
        raise operator.refuse(f"its weight is quantized along axis {tensor.dimension}.")
    if not np.all(np.isfinite(tensor.scale) & (tensor.scale > 0)):
        raise operator.refuse("its weight has a scale that is not positive.")
    scale = np.broadcast_to(tensor.scale, (outputs,)).astype(np.float32)
    bits = int(state.bits.get(tensor.name, "8"))
    check_width(f"{operator.code} number {operator.position}", tensor.name, values, bits)
    return IntegerWeight(tensor.name, values, scale, bits, Carriers(tflite=tensor.carrier))


def _bias(operator: FileOperator, source: ActivationTensor, weight: IntegerWeight) -> Int32Array:
    outputs = weight.values.shape[0]
    if len(operator.inputs) < 3 or operator.inputs[2] is None:
        return np.zeros(outputs, dtype=np.int32)
    tensor = operator.inputs[2]
    values = constant_of(operator, 2, np.dtype(np.int32), rank=1)
    expected: Float32Array = weight.scale * np.float32(source.quantization.scale)
    if values.shape != (outputs,) or tensor.scale.size not in (1, outputs):
        raise operator.refuse(f"its bias has shape {list(values.shape)} for {outputs} channels.")
    if not np.allclose(tensor.scale, expected, rtol=1e-5, atol=0):
        raise operator.refuse("its bias is not in steps of input scale times weight scale.")
    return values.astype(np.int32)
