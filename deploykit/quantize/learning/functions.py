"""What layers compute, in torch, so that gradients go through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deploykit.quantize.nodes import constant, function_of, groups_of, leaky_slope, window_of
from deploykit.quantize.operators import Kind
from deploykit.quantize.structure import Layer
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Function
from deploykit.spec.quantized import Quantization, int_range

Computes = Callable[[Sequence[Tensor], Tensor | None, Tensor | None], Tensor]
"""Of a layer's inputs, its weight and its bias; None for layers without weights."""

FUNCTIONS: dict[Function, Callable[[Tensor], Tensor]] = {
    Function.SIGMOID: torch.sigmoid,
    Function.TANH: torch.tanh,
    Function.ELU: functional.elu,
    Function.GELU: functional.gelu,
    Function.GELU_TANH: lambda x: functional.gelu(x, approximate="tanh"),
    Function.EXP: torch.exp,
    Function.ERF: torch.erf,
    Function.MISH: functional.mish,
    Function.SOFTPLUS: functional.softplus,
    Function.SOFTSIGN: functional.softsign,
}


def computes(layer: Layer) -> Computes | None:
    """The layer with its fused clipping; None where it has no form here."""
    make = _MAKERS.get(layer.kind)
    plain = None if make is None else make(layer)
    if plain is None or (layer.low is None and layer.high is None):
        return plain
    inner = plain

    def clipped(inputs: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return inner(inputs, weight, bias).clamp(layer.low, layer.high)

    return clipped


def quantized(values: Tensor, grid: Quantization) -> Tensor:
    """The nearest real numbers of the grid; gradients pass where nothing is clipped."""
    low, high = int_range(grid.bits)
    return torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero_point, low, high)


def _conv(layer: Layer) -> Computes:
    node = layer.nodes[0]
    window, groups = window_of(node), groups_of(node)
    top, left, bottom, right = window.pads

    def conv(inputs: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        assert weight is not None
        values, inner = inputs[0], (top, left)
        if (top, left) != (bottom, right):
            values, inner = functional.pad(values, (left, right, top, bottom)), (0, 0)
        return functional.conv2d(
            values, weight, bias, window.strides, inner, window.dilations, groups
        )

    return conv


def _linear(layer: Layer) -> Computes:
    def linear(inputs: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        assert weight is not None
        return functional.linear(inputs[0], weight, bias)

    return linear


def _binary(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Layer], Computes]:
    def make(layer: Layer) -> Computes:
        node = layer.nodes[0]
        held = [constant(node, side) for side in (0, 1)]
        tensors = [None if one is None else torch.from_numpy(np.array(one)) for one in held]

        def both(inputs: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
            waiting = iter(inputs)
            left, right = (next(waiting) if one is None else one for one in tensors)
            return operation(left, right)

        return both

    return make


def _max_pool(layer: Layer) -> Computes:
    window = window_of(layer.nodes[0])
    top, left, bottom, right = window.pads

    def pooled(values: Tensor) -> Tensor:
        padded = functional.pad(values, (left, right, top, bottom), value=-torch.inf)
        return functional.max_pool2d(
            padded, window.kernel, window.strides, dilation=window.dilations
        )

    return _of_one(pooled)


def _reshape(layer: Layer) -> Computes:
    shape = static_shape(layer.nodes[0].outputs[0])
    assert shape is not None
    return _of_one(lambda x: x.reshape(-1, *shape[1:]))


def _lookup(layer: Layer) -> Computes | None:
    function = FUNCTIONS.get(function_of(layer.nodes[0]))
    return None if function is None else _of_one(function)


def _leaky(layer: Layer) -> Computes:
    slope = float(leaky_slope(layer.nodes[0]))
    return _of_one(lambda x: functional.leaky_relu(x, slope))


def _of_one(function: Callable[[Tensor], Tensor]) -> Computes:
    return lambda inputs, weight, bias: function(inputs[0])


_MAKERS: dict[Kind, Callable[[Layer], Computes | None]] = {
    Kind.CONV: _conv,
    Kind.LINEAR: _linear,
    Kind.ADD: _binary(torch.add),
    Kind.MUL: _binary(torch.mul),
    Kind.SUB: _binary(torch.sub),
    Kind.LOOKUP: _lookup,
    Kind.GLOBAL_AVERAGE_POOL: lambda layer: _of_one(lambda x: x.mean((2, 3), keepdim=True)),
    Kind.MAX_POOL: _max_pool,
    Kind.FLATTEN: _reshape,
    Kind.RESHAPE: _reshape,
    Kind.CLAMP: lambda layer: _of_one(lambda x: x),
    Kind.LEAKY_RELU: _leaky,
}
