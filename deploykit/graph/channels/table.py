"""The table: one row per operator. An operator without a row stops removal at its border."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from deploykit.graph import activations
from deploykit.graph.channels.attention import Product
from deploykit.graph.channels.concat import Concat, Stack
from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.elementwise import PerChannel, clip, multiply, unary, with_constant
from deploykit.graph.channels.embedding import Embedding
from deploykit.graph.channels.joining import join
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.pad_channels import PadChannels
from deploykit.graph.channels.reshaping import Reshape, Transpose
from deploykit.graph.channels.rule import Operator
from deploykit.graph.channels.selecting import select
from deploykit.graph.channels.spatial import BlockShuffle, InstanceNorm, Resize, global_pool, pool
from deploykit.graph.channels.spatial_matmul import SpatialMatMul
from deploykit.graph.channels.whole import layer_norm, lp_norm, reduce_mean, reduce_other, softmax
from deploykit.spec.arrays import Float64Array

Bind = Callable[[ir.Node], Operator | None]


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
    "Celu": (unary(activations.celu),),
    "Clip": (unary(clip),),
    "Dropout": (unary(lambda _, x: x),),
    "Elu": (unary(activations.elu),),
    "Erf": (_plain(activations.erf),),
    "Exp": (_plain(np.exp),),
    "Gelu": (unary(activations.gelu),),
    "HardSigmoid": (unary(activations.hard_sigmoid),),
    "HardSwish": (_plain(activations.hard_swish),),
    "Identity": (_plain(lambda x: x),),
    "LeakyRelu": (unary(activations.leaky_relu),),
    "Mish": (_plain(lambda x: x * np.tanh(activations.softplus(x))),),
    "Neg": (_plain(np.negative),),
    "Relu": (_plain(lambda x: np.maximum(x, 0.0)),),
    "Sigmoid": (_plain(activations.sigmoid),),
    "Softplus": (_plain(activations.softplus),),
    "Softsign": (_plain(lambda x: x / (1.0 + np.abs(x))),),
    "Sqrt": (_plain(np.sqrt),),
    "Tanh": (_plain(np.tanh),),
    "ThresholdedRelu": (unary(activations.thresholded_relu),),
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
    "Gather": (select, Embedding.of),
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
