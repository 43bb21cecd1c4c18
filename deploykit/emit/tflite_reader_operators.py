"""What each computing operator of a .tflite file means in a QuantizedNetwork."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.emit.packing import check_width
from deploykit.emit.tflite_file import FileOperator
from deploykit.emit.tflite_reader_bounds import read_extreme
from deploykit.emit.tflite_reader_moves import (
    read_concat,
    read_depth_to_space,
    read_gather,
    read_repeat,
    read_reshape,
    read_slice,
    read_space_to_depth,
)
from deploykit.emit.tflite_reader_numbers import read_arg_max
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
from deploykit.spec.operators import (
    Add,
    Conv,
    Function,
    GlobalAveragePool,
    IntegerWeight,
    LeakyRelu,
    Linear,
    Lookup,
    MaxPool,
    Mul,
    Sub,
    Window,
)
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
    window, height, width = _window(operator, view, (size[0], size[1]), strides, dilations)
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


def read_binary(state: ReaderState, operator: FileOperator) -> None:
    """ADD, MUL or SUB of two tensors of one order whose shapes broadcast; one may be a constant."""
    refuse_activation(operator, 0)
    kind = BINARY[operator.code]
    constants = [state.constant(operator, position) for position in (0, 1)]
    views = [
        state.unpadded(operator, position)
        for position, constant in enumerate(constants)
        if constant is None
    ]
    if not views:
        raise operator.refuse("both of its operands are constants.")
    wide = max(views, key=lambda view: int(np.prod(view.tensor.shape)))
    shapes = [constant.values.shape for constant in constants if constant is not None]
    shapes += [view.tensor.shape for view in views]
    fits = all(
        len(shape) == len(wide.tensor.shape)
        and all(size in (1, full) for size, full in zip(shape, wide.tensor.shape, strict=True))
        for shape in shapes
    )
    alike = all(view.order is wide.order and view.unflattened == wide.unflattened for view in views)
    flat = wide.unflattened is not None and any(constants)
    if not fits or not alike or flat or wide.order is Order.NCHW:
        found = " and ".join(str(list(shape)) for shape in shapes)
        orders = " and ".join(view.order.value for view in views)
        raise operator.refuse(f"it joins shapes {found} ({orders}); they must broadcast.")
    result = state.define(operator.output, wide.tensor.shape, wide.order, wide.unflattened)
    left, right = (
        constant.name if constant is not None else state.unpadded(operator, position).tensor.name
        for position, constant in enumerate(constants)
    )
    state.operators.append(kind(result.name, left, right, result.name))


def read_lookup(state: ReaderState, operator: FileOperator) -> None:
    """LOGISTIC, TANH, ELU, EXP or GELU."""
    view = state.unpadded(operator)
    function = LOOKUPS[operator.code]
    if operator.code == "GELU" and operator.options is not None and operator.option(0, "<?"):
        function = Function.GELU_TANH
    result = state.define(operator.output, view.tensor.shape, view.order, view.unflattened)
    state.operators.append(Lookup(result.name, view.tensor.name, result.name, function))


def read_max_pool(state: ReaderState, operator: FileOperator) -> None:
    """MAX_POOL_2D, after a PAD with the smallest integer where there is one."""
    zero_point = state.view(operator).tensor.quantization.zero_point
    lowest: dict[str, int | None] = {"PAD": -128}
    view = state.image(operator, lowest if zero_point == -128 else {**lowest, "PADV2": -128})
    refuse_activation(operator, 5)
    kernel = (operator.option(4), operator.option(3))
    strides = (operator.option(2), operator.option(1))
    window, height, width = _window(operator, view, kernel, strides, (1, 1))
    shape = (*view.tensor.shape[:2], height, width)
    result = state.moved(operator, view, shape, Order.NHWC)
    state.operators.append(MaxPool(result.name, view.tensor.name, result.name, window))


def read_mean(state: ReaderState, operator: FileOperator) -> None:
    """MEAN over H and W, both kept."""
    view = state.unpadded(operator)
    axes = {int(axis) % 4 for axis in constant_of(operator, 1, np.dtype(np.int32)).reshape(-1)}
    if view.order is not Order.NHWC or axes != {1, 2} or not operator.option(0, "<?"):
        raise operator.refuse("deploykit reads the mean over H and W of an NHWC image, axes kept.")
    result = state.define(operator.output, (*view.tensor.shape[:2], 1, 1), Order.NHWC)
    state.operators.append(GlobalAveragePool(result.name, view.tensor.name, result.name))


def read_leaky_relu(state: ReaderState, operator: FileOperator) -> None:
    """LEAKY_RELU whose slope is a whole number of 1/256, with equal steps on both sides."""
    view, alpha = state.unpadded(operator), operator.real_option(0)
    slope = int(np.clip(np.rint(alpha * 256), 0, 2**15)) if np.isfinite(alpha) else 0
    if slope < 1 or slope != alpha * 256:
        raise operator.refuse(f"its slope {alpha} is no whole number of 1/256.")
    result = state.moved(operator, view, view.tensor.shape, view.order, view.unflattened)
    state.operators.append(LeakyRelu(result.name, view.tensor.name, result.name, slope))


def _window(
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


BINARY: Mapping[str, type[Add | Mul | Sub]] = {"ADD": Add, "MUL": Mul, "SUB": Sub}

LOOKUPS: Mapping[str, Function] = {
    "ELU": Function.ELU,
    "EXP": Function.EXP,
    "GELU": Function.GELU,
    "LOGISTIC": Function.SIGMOID,
    "TANH": Function.TANH,
}

READERS: Mapping[str, Callable[[ReaderState, FileOperator], None]] = {
    "ADD": read_binary,
    "ARG_MAX": read_arg_max,
    "CONCATENATION": read_concat,
    "CONV_2D": read_conv,
    "DEPTHWISE_CONV_2D": read_conv,
    "DEPTH_TO_SPACE": read_depth_to_space,
    "FULLY_CONNECTED": read_linear,
    "GATHER": read_gather,
    "ELU": read_lookup,
    "EXP": read_lookup,
    "GELU": read_lookup,
    "LEAKY_RELU": read_leaky_relu,
    "LOGISTIC": read_lookup,
    "MAXIMUM": read_extreme,
    "MAX_POOL_2D": read_max_pool,
    "MEAN": read_mean,
    "MINIMUM": read_extreme,
    "MUL": read_binary,
    "RESHAPE": read_reshape,
    "RESIZE_NEAREST_NEIGHBOR": read_repeat,
    "SLICE": read_slice,
    "SPACE_TO_DEPTH": read_space_to_depth,
    "STRIDED_SLICE": read_slice,
    "SUB": read_binary,
    "TANH": read_lookup,
}
