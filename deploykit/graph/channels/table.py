"""The table: one row per operator. An operator without a row stops removal at its border."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.attention import Product
from deploykit.graph.channels.elementwise import PerChannel, clip, multiply, unary, with_constant
from deploykit.graph.channels.joining import join
from deploykit.graph.channels.mixing import Depthwise, Mixing, SpatialMatMul
from deploykit.graph.channels.reshaping import Reshape, Transpose
from deploykit.graph.channels.rule import Operator
from deploykit.graph.channels.selecting import Concat, PadChannels, Stack, select
from deploykit.graph.channels.spatial import BlockShuffle, InstanceNorm, Resize, global_pool, pool
from deploykit.graph.channels.whole import layer_norm, lp_norm, reduce_mean, reduce_other, softmax
from deploykit.graph.edit import attribute_float, attribute_string
from deploykit.spec.arrays import Float64Array

Bind = Callable[[ir.Node], Operator | None]


def _sigmoid(x: Float64Array) -> Float64Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


def _leaky(node: ir.Node, x: Float64Array) -> Float64Array:
    return np.where(x < 0, attribute_float(node, "alpha", 0.01) * x, x)


def _hard_sigmoid(node: ir.Node, x: Float64Array) -> Float64Array:
    alpha, beta = attribute_float(node, "alpha", 0.2), attribute_float(node, "beta", 0.5)
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _elu(node: ir.Node, x: Float64Array) -> Float64Array:
    return np.where(x < 0, attribute_float(node, "alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


def _celu(node: ir.Node, x: Float64Array) -> Float64Array:
    alpha = attribute_float(node, "alpha", 1.0)
    return np.maximum(x, 0.0) + np.minimum(alpha * np.expm1(np.minimum(x / alpha, 0.0)), 0.0)


def _erf(x: Float64Array) -> Float64Array:
    flat = [math.erf(value) for value in x.reshape(-1)]
    return np.array(flat, dtype=np.float64).reshape(x.shape)


def _gelu(node: ir.Node, x: Float64Array) -> Float64Array:
    if attribute_string(node, "approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _softplus(x: Float64Array) -> Float64Array:
    return np.logaddexp(0.0, x)


def _prelu(x: Float64Array, slope: Float64Array) -> Float64Array:
    return np.where(x < 0, slope * x, x)


def _divide(x: Float64Array, y: Float64Array) -> Float64Array:
    return np.where((x == 0) & (y != 0) & ~np.isnan(y), 0.0, x / y)


def _folded(function: np.ufunc) -> Callable[..., Float64Array]:
    """Of any number of operands, which may broadcast."""
    return lambda *values: reduce(function, values)


def _plain(function: Callable[[Float64Array], Float64Array]) -> Bind:
    return unary(lambda _, x: function(x))


RULES: Mapping[str, Sequence[Bind]] = {
    # weighted sums
    "Conv": (Depthwise.of, Mixing.of),
    "ConvTranspose": (Depthwise.of, Mixing.of),
    "Gemm": (Mixing.of,),
    "MatMul": (Mixing.of, SpatialMatMul.of, Product.of),
    # element by element
    "Abs": (_plain(np.abs),),
    "Cast": (unary(lambda _, x: x),),
    "Celu": (unary(_celu),),
    "Clip": (unary(clip),),
    "Dropout": (unary(lambda _, x: x),),
    "Elu": (unary(_elu),),
    "Erf": (_plain(_erf),),
    "Exp": (_plain(np.exp),),
    "Gelu": (unary(_gelu),),
    "HardSigmoid": (unary(_hard_sigmoid),),
    "HardSwish": (_plain(lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)),),
    "Identity": (_plain(lambda x: x),),
    "LeakyRelu": (unary(_leaky),),
    "Mish": (_plain(lambda x: x * np.tanh(_softplus(x))),),
    "Neg": (_plain(np.negative),),
    "Relu": (_plain(lambda x: np.maximum(x, 0.0)),),
    "Sigmoid": (_plain(_sigmoid),),
    "Softplus": (_plain(_softplus),),
    "Softsign": (_plain(lambda x: x / (1.0 + np.abs(x))),),
    "Sqrt": (_plain(np.sqrt),),
    "Tanh": (_plain(np.tanh),),
    "BatchNormalization": (PerChannel.of,),
    "PRelu": (with_constant(_prelu),),
    "Pow": (with_constant(np.power),),
    "Add": (join(np.add), with_constant(np.add)),
    "Div": (with_constant(_divide), join(_divide)),
    "Max": (join(_folded(np.maximum)), with_constant(np.maximum)),
    "Min": (join(_folded(np.minimum)), with_constant(np.minimum)),
    "Mul": (join(multiply), with_constant(multiply)),
    "Sub": (join(np.subtract), with_constant(np.subtract)),
    "Sum": (join(_folded(np.add)),),
    # maps
    "AveragePool": (pool,),
    "DepthToSpace": (BlockShuffle.of,),
    "GlobalAveragePool": (global_pool,),
    "GlobalMaxPool": (global_pool,),
    "InstanceNormalization": (InstanceNorm.of,),
    "MaxPool": (pool,),
    "Resize": (Resize.of,),
    "SpaceToDepth": (BlockShuffle.of,),
    # across an axis
    "LayerNormalization": (layer_norm,),
    "LogSoftmax": (softmax,),
    "LpNormalization": (lp_norm,),
    "ReduceL2": (reduce_other,),
    "ReduceMax": (reduce_mean,),
    "ReduceMean": (reduce_mean,),
    "ReduceMin": (reduce_mean,),
    "ReduceSum": (reduce_other,),
    "RMSNormalization": (layer_norm,),
    "Softmax": (softmax,),
    # shapes
    "Concat": (Concat.of, Stack.of),
    "Flatten": (Reshape.of,),
    "Gather": (select,),
    "Pad": (PadChannels.of,),
    "Reshape": (Reshape.of,),
    "Slice": (select,),
    "Split": (select,),
    "Squeeze": (Reshape.of,),
    "Transpose": (Transpose.of,),
    "Unsqueeze": (Reshape.of,),
}


def _is_float(value: ir.Value) -> bool:
    """Of known rank; integers round, so that constants would not pass them as they are."""
    return value.shape is not None and value.dtype is not None and value.dtype.is_floating_point()


def candidates(node: ir.Node) -> list[Operator]:
    """The rows that speak for this node's attributes and operands, best first.

    None for operators of another domain, outputs that are not floats of known rank, or operands
    that a subgraph computes.
    """
    if node.domain not in ("", "ai.onnx") or not all(map(_is_float, node.outputs)):
        return []
    bound = (bind(node) for bind in RULES.get(node.op_type, ()))
    return [operator for operator in bound if operator is not None]
