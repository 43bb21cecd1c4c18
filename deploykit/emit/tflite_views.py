"""The reader's state: which tensor of the network each tensor of the file shows, and how.

Helper tensors of the file (padded, transposed, or public ones) are views of a network's tensor;
the operator that reads such a view takes the pads or the order into its own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from deploykit.emit.tflite_parts import FileOperator, FilePort, FileTensor
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Operator, Pad, Reshape
from deploykit.spec.quantized import (
    ActivationTensor,
    Batch,
    ConstantTensor,
    IndexTensor,
    Port,
    Quantization,
    Tail,
)

TAILS = frozenset({"SOFTMAX", "LOG_SOFTMAX", "TRANSPOSE"})
"""What may stand behind an output's real values."""
Shape = tuple[int, ...]
NO_PADS = (0, 0, 0, 0)
NO_ACTIVATION = 0
NOTHING: Mapping[str, int | None] = {}


class Order(Enum):
    """Order of the file's elements against the network's [N, C, H, W] or flattened C, H, W."""

    NHWC = "nhwc"
    NCHW = "nchw"
    FLAT = "flattened as c, h, w"
    FLAT_HWC = "flattened as h, w, c"


@dataclass(frozen=True)
class View:
    """pads: top, left, bottom, right around the tensor, holding `fill`.

    unflattened: (C, H, W) of an Order.FLAT_HWC view. real: whether it shows real values, as an
    output does, and tail what they went through. places: whether it shows 128 more than the
    integers, by which a GATHER takes from a table. padded_by: a PAD or PADV2. reshaped_by: a
    RESHAPE to four axes in the order of the network's, which a TRANSPOSE may turn to NHWC.
    """

    tensor: ActivationTensor
    order: Order
    pads: tuple[int, int, int, int] = NO_PADS
    fill: int | None = None
    unflattened: tuple[int, int, int] | None = None
    real: bool = False
    tail: Tail | None = None
    places: bool = False
    padded_by: FileOperator | None = None
    reshaped_by: FileOperator | None = None


@dataclass
class ReaderState:
    """What has been read so far. waiting: inputs whose order the first reader decides.

    answers: by index of the file's tensor, the whole numbers that an ArgMax gives there.
    bits: by name of a weight, where its integers take fewer than 8.
    """

    views: dict[int, View] = field(default_factory=dict)
    waiting: dict[int, FilePort] = field(default_factory=dict)
    tensors: dict[str, ActivationTensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    constants: dict[str, ConstantTensor] = field(default_factory=dict)
    inputs: dict[str, Port] = field(default_factory=dict)
    indices: dict[str, IndexTensor] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    batch: Batch = Batch.FIXED
    bits: Mapping[str, str] = field(default_factory=dict)

    def view(self, operator: FileOperator, position: int = 0) -> View:
        """The activation that an operator reads, as a view."""
        tensor = operand(operator, position)
        if tensor.index in self.waiting:
            self.resolve(tensor, self.waiting[tensor.index], Order.NHWC)
        if tensor.index not in self.views:
            raise operator.refuse(f"it reads {tensor.name!r}, which nothing before it computes.")
        if self.views[tensor.index].real and operator.code not in TAILS:
            raise operator.refuse(f"it reads real values ({tensor.name!r}); only outputs are real.")
        view = self.views[tensor.index]
        if view.places and operator.code != "GATHER":
            raise operator.refuse(f"it reads {tensor.name!r}, the places in a table.")
        return view if operator.code == "TRANSPOSE" else self.own_shape(view)

    def own_shape(self, view: View) -> View:
        """The view itself, or what a Reshape computes where no TRANSPOSE turns it to NHWC."""
        made = view.reshaped_by
        if made is None:
            return view
        batch, height, width, channels = made.output.shape
        if channels > 1 and height * width > 1:
            raise made.refuse("its elements are not in the order of an NHWC image.")
        return self.reshape(view, made.output, (batch, channels, height, width))

    def reshape(self, view: View, result: FileTensor, shape: Shape) -> View:
        """Add the Reshape of a tensor whose elements come in the order C, H, W."""
        self.views.pop(result.index, None)
        order = Order.NHWC if len(shape) == 4 else Order.FLAT
        defined = self.define(result, shape, order)
        if defined.quantization != view.tensor.quantization:
            raise GraphError(
                f"Tensor {result.name!r} is reshaped, and must be quantized as before."
            )
        self.operators.append(Reshape(defined.name, view.tensor.name, defined.name))
        return self.views[result.index]

    def unpadded(self, operator: FileOperator, position: int = 0) -> View:
        """The same, for operators that take no pads."""
        return self.own_pads(self.view(operator, position))

    def own_pads(self, view: View, taken: Mapping[str, int | None] = NOTHING) -> View:
        """The view itself, or what a Pad computes where no window takes the pads over.

        taken: by code of the padding operator, what it holds where a window takes it over; None
        for whatever it holds.
        """
        made = view.padded_by
        if made is None or (made.code in taken and taken[made.code] in (None, view.fill)):
            return view
        assert view.fill is not None
        if made.output.name not in self.tensors:
            (batch, channels, height, width), pads = view.tensor.shape, view.pads
            shape = (batch, channels, height + pads[0] + pads[2], width + pads[1] + pads[3])
            del self.views[made.output.index]
            result = self.define(made.output, shape, Order.NHWC)
            padded = Pad(result.name, view.tensor.name, result.name, pads, view.fill)
            self.operators.append(padded)
        return self.views[made.output.index]

    def constant(self, operator: FileOperator, position: int) -> ConstantTensor | None:
        """The int8 constant that an operator reads, None where it reads an activation."""
        tensor = operand(operator, position)
        if tensor.values is None:
            return None
        if tensor.dtype != np.int8:
            raise operator.refuse(f"its constant {tensor.name!r} is {tensor.dtype.name}, not int8.")
        values = np.array(tensor.values)
        if values.ndim == 4:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        found = ConstantTensor(tensor.name, values, per_tensor_quantization(tensor))
        return self.constants.setdefault(tensor.name, found)

    def image(self, operator: FileOperator, taken: Mapping[str, int | None]) -> View:
        """The same, for windows over H and W, which take pads over; see own_pads."""
        view = self.own_pads(self.view(operator), taken)
        if view.order is not Order.NHWC:
            raise operator.refuse(f"its input is {view.order.value}; it must be an NHWC image.")
        return view

    def define(
        self,
        tensor: FileTensor,
        shape: Shape,
        order: Order,
        unflattened: tuple[int, int, int] | None = None,
    ) -> ActivationTensor:
        """Add a tensor of the network; shape: as the network has it."""
        expected = shape
        if order is Order.NHWC:
            expected = (shape[0], *shape[2:], shape[1])
        if tensor.shape != expected:
            raise GraphError(
                f"Tensor {tensor.name!r} has shape {list(tensor.shape)} in the file where its "
                f"operator gives {list(expected)}; the file is damaged or has a dynamic shape."
            )
        if tensor.index in self.views:
            raise GraphError(f"Tensor {tensor.name!r} is computed twice.")
        name = tensor.name
        while name in self.tensors:
            name += "_"
        self.tensors[name] = ActivationTensor(name, shape, activation_quantization(tensor))
        self.views[tensor.index] = View(self.tensors[name], order, unflattened=unflattened)
        return self.tensors[name]

    def moved(
        self,
        operator: FileOperator,
        view: View,
        shape: Shape,
        order: Order,
        unflattened: tuple[int, int, int] | None = None,
    ) -> ActivationTensor:
        """The result of an operator that moves or compares what `view` shows; one quantization."""
        result = self.define(operator.output, shape, order, unflattened)
        require_same_quantization(operator, view.tensor, result)
        return result

    def resolve(self, tensor: FileTensor, port: FilePort, order: Order) -> None:
        """An input's integer tensor becomes a tensor of the network."""
        if tensor.dtype == np.int32:
            raise GraphError(
                f"Input {port.name!r} holds int32, and no GATHER of a table reads it first; "
                "deploykit reads whole numbers as rows of a table."
            )
        self.waiting = {
            index: waiting for index, waiting in self.waiting.items() if waiting is not port
        }
        match (len(tensor.shape), order):
            case (4, Order.NHWC):
                batch, height, width, channels = tensor.shape
                defined = self.define(tensor, (batch, channels, height, width), order)
            case (4, _):
                raise GraphError(
                    f"Input {port.name!r} has shape {list(tensor.shape)}; deploykit reads images "
                    "as NHWC."
                )
            case _:
                defined = self.define(tensor, tensor.shape, Order.FLAT)
        self.inputs[port.name] = Port(port.name, defined.name)


def operand(operator: FileOperator, position: int) -> FileTensor:
    """A required input of an operator."""
    tensor = operator.inputs[position] if position < len(operator.inputs) else None
    if tensor is None:
        raise operator.refuse(f"its input {position} is missing.")
    return tensor


def activation_quantization(tensor: FileTensor) -> Quantization:
    """Per-tensor quantization of an int8 activation."""
    if tensor.dtype != np.int8 or tensor.values is not None:
        raise GraphError(
            f"Tensor {tensor.name!r} is {tensor.dtype.name} "
            f"{'constant' if tensor.values is not None else 'activation'} where an int8 activation "
            "belongs; deploykit reads fully quantized int8 files."
        )
    return per_tensor_quantization(tensor)


def per_tensor_quantization(tensor: FileTensor) -> Quantization:
    """The one scale and zero point of a tensor, checked against its element type."""
    if tensor.scale.size != 1 or tensor.zero_point.size != 1:
        raise GraphError(
            f"Tensor {tensor.name!r} has {tensor.scale.size} scales and {tensor.zero_point.size} "
            "zero points where one of each belongs."
        )
    scale, zero_point = float(tensor.scale[0]), int(tensor.zero_point[0])
    low = 0 if tensor.dtype == np.uint8 else -128
    if not (np.isfinite(scale) and scale > 0 and low <= zero_point <= low + 255):
        raise GraphError(
            f"Tensor {tensor.name!r} has scale {scale} and zero point {zero_point}; the scale must "
            f"be positive, the zero point within {low} and {low + 255}."
        )
    return Quantization(scale, zero_point)


def constant_of(
    operator: FileOperator, position: int, dtype: np.dtype[np.generic], rank: int | None = None
) -> AnyArray:
    tensor = operand(operator, position)
    if tensor.values is None or tensor.dtype != dtype:
        raise operator.refuse(f"its input {position} must be a constant of type {dtype.name}.")
    if rank is not None and len(tensor.shape) != rank:
        raise operator.refuse(f"its input {position} has shape {list(tensor.shape)}.")
    return tensor.values


def refuse_activation(operator: FileOperator, slot: int) -> None:
    if operator.option(slot, "<b") != NO_ACTIVATION:
        raise operator.refuse(
            "it has a fused activation; deploykit reads files whose output ranges do the clipping."
        )


def require_same_quantization(
    operator: FileOperator, source: ActivationTensor, result: ActivationTensor
) -> None:
    if source.quantization != result.quantization:
        raise operator.refuse("its input and output must share one scale and zero point.")


def network_axis(operator: FileOperator, axis: int, view: View) -> int:
    """Where the network has an axis of the file."""
    match view.order:
        case Order.NHWC:
            return (0, 2, 3, 1)[axis]
        case Order.FLAT:
            return axis
        case _:
            raise operator.refuse(f"its input is {view.order.value}.")
