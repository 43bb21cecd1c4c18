"""What each computing operator of a .tflite file means in a QuantizedNetwork."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.emit.tflite_parts import FileOperator
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
from deploykit.emit.tflite_reader_weighted import read_conv, read_linear, read_window
from deploykit.emit.tflite_views import (
    Order,
    ReaderState,
    constant_of,
    refuse_activation,
)
from deploykit.spec.operators import (
    Add,
    Function,
    GlobalAveragePool,
    LeakyRelu,
    Lookup,
    MaxPool,
    Mul,
    Sub,
)


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
    window, height, width = read_window(operator, view, kernel, strides, (1, 1))
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
