"""The operators that the float evaluator knows, one row each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploykit.reference import float_activations as activations
from deploykit.reference import float_constants as constants
from deploykit.reference import float_elements as elements
from deploykit.reference import float_linear as linear
from deploykit.reference import float_normalize as normalize
from deploykit.reference import float_recurrent as recurrent
from deploykit.reference import float_reduce as reduce
from deploykit.reference import float_shapes as shapes
from deploykit.reference import float_windows as windows
from deploykit.reference.float_elements import binary, folded, unary
from deploykit.reference.float_node import Rule
from deploykit.reference.float_reduce import reduced
from deploykit.reference.float_resize import resize
from deploykit.spec.error_function import erf

ELEMENTWISE: Mapping[str, Rule] = {
    "Abs": unary(lambda x, _: np.abs(x)),
    "Add": binary(np.add),
    "And": binary(np.logical_and),
    "Cast": elements.cast,
    "Ceil": unary(lambda x, _: np.ceil(x)),
    "Celu": unary(activations.celu),
    "Clip": elements.clip,
    "Cos": unary(lambda x, _: np.cos(x)),
    "Div": binary(elements.divide),
    "Dropout": elements.dropout,
    "Elu": unary(activations.elu),
    "Equal": binary(np.equal),
    "Erf": unary(lambda x, _: erf(x)),
    "Exp": unary(lambda x, _: np.exp(x)),
    "Floor": unary(lambda x, _: np.floor(x)),
    "Gelu": unary(activations.gelu),
    "Greater": binary(np.greater),
    "GreaterOrEqual": binary(np.greater_equal),
    "HardSigmoid": unary(activations.hard_sigmoid),
    "HardSwish": unary(activations.hard_swish),
    "Identity": unary(lambda x, _: x),
    "IsNaN": unary(lambda x, _: np.isnan(x)),
    "LeakyRelu": unary(activations.leaky_relu),
    "Less": binary(np.less),
    "LessOrEqual": binary(np.less_equal),
    "Log": unary(lambda x, _: np.log(x)),
    "Max": folded(np.maximum),
    "Mean": elements.mean,
    "Min": folded(np.minimum),
    "Mish": unary(activations.mish),
    "Mod": elements.modulo,
    "Mul": binary(np.multiply),
    "Neg": unary(lambda x, _: np.negative(x)),
    "Not": unary(lambda x, _: np.logical_not(x)),
    "Or": binary(np.logical_or),
    "PRelu": activations.prelu,
    "Pow": binary(elements.power),
    "Reciprocal": unary(lambda x, _: np.reciprocal(x)),
    "Relu": unary(lambda x, _: np.maximum(x, 0)),
    "Round": unary(lambda x, _: np.rint(x)),
    "Selu": unary(activations.selu),
    "Sigmoid": unary(lambda x, _: activations.sigmoid(x)),
    "Sign": unary(lambda x, _: np.sign(x)),
    "Sin": unary(lambda x, _: np.sin(x)),
    "Softplus": unary(lambda x, _: activations.softplus(x)),
    "Softsign": unary(lambda x, _: x / (1.0 + np.abs(x))),
    "Sqrt": unary(lambda x, _: np.sqrt(x)),
    "Sub": binary(np.subtract),
    "Sum": folded(np.add),
    "Swish": unary(activations.swish),
    "Tanh": unary(lambda x, _: np.tanh(x)),
    "ThresholdedRelu": unary(activations.thresholded_relu),
    "Where": elements.where,
    "Xor": binary(np.logical_xor),
}
"""Each output element from the input elements that broadcasting puts beside one another."""

WINDOWS: Mapping[str, Rule] = {
    "AveragePool": windows.average_pool,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "GlobalAveragePool": windows.global_pool(lambda x, axes: x.mean(axis=axes)),
    "GlobalMaxPool": windows.global_pool(lambda x, axes: x.max(axis=axes)),
    "MaxPool": windows.max_pool,
}

IMAGES: Mapping[str, Rule] = {
    **WINDOWS,
    "BatchNormalization": normalize.batch_normalization,
    "DepthToSpace": unary(shapes.depth_to_space),
    "GroupNormalization": normalize.group_normalization,
    "InstanceNormalization": normalize.instance_normalization,
    "LRN": unary(normalize.local_response),
    "SpaceToDepth": unary(shapes.space_to_depth),
}
"""[N, C, ...] by the first input, whose images never meet."""

REDUCTIONS: Mapping[str, Rule] = {
    "ReduceL1": reduced(lambda x, axes, kept: np.abs(x).sum(axis=axes, keepdims=kept)),
    "ReduceL2": reduced(lambda x, axes, kept: np.sqrt((x * x).sum(axis=axes, keepdims=kept))),
    "ReduceLogSumExp": reduced(reduce.log_sum_exp),
    "ReduceMax": reduced(lambda x, axes, kept: x.max(axis=axes, keepdims=kept)),
    "ReduceMean": reduced(lambda x, axes, kept: x.mean(axis=axes, keepdims=kept)),
    "ReduceMin": reduced(lambda x, axes, kept: x.min(axis=axes, keepdims=kept)),
    "ReduceProd": reduced(lambda x, axes, kept: x.prod(axis=axes, keepdims=kept)),
    "ReduceSum": reduced(lambda x, axes, kept: x.sum(axis=axes, keepdims=kept)),
    "ReduceSumSquare": reduced(lambda x, axes, kept: (x * x).sum(axis=axes, keepdims=kept)),
}

EVALUATE: Mapping[str, Rule] = {
    **ELEMENTWISE,
    **IMAGES,
    **REDUCTIONS,
    "ArgMax": reduce.arg_extreme(lambda x, axis: x.argmax(axis)),
    "ArgMin": reduce.arg_extreme(lambda x, axis: x.argmin(axis)),
    "Attention": linear.attention,
    "Concat": shapes.concat,
    "Constant": constants.constant,
    "ConstantOfShape": constants.constant_of_shape,
    "CumSum": reduce.cumulative_sum,
    "Einsum": linear.einsum,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "GRU": recurrent.gru,
    "GatherElements": shapes.gather_elements,
    "GatherND": shapes.gather_nd,
    "Gemm": linear.gemm,
    "LSTM": recurrent.lstm,
    "LayerNormalization": normalize.layer_normalization,
    "LogSoftmax": unary(reduce.log_softmax),
    "LpNormalization": unary(normalize.lp_normalization),
    "MatMul": binary(np.matmul),
    "Pad": shapes.pad,
    "RMSNormalization": normalize.rms_normalization,
    "Range": constants.arange,
    "Reshape": shapes.reshape,
    "Resize": resize,
    "ScatterND": shapes.scatter_nd,
    "Shape": constants.shape,
    "Size": constants.size,
    "Slice": shapes.slicing,
    "Softmax": unary(reduce.softmax),
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Tile": shapes.tile,
    "TopK": reduce.top_k,
    "Transpose": unary(shapes.transpose),
    "Trilu": shapes.trilu,
    "Unsqueeze": shapes.unsqueeze,
    "Upsample": resize,
}
"""Every operator."""
