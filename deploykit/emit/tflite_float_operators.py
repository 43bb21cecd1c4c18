"""The float32 TFLite form of every operator of a normalized float graph: one row each.

XNNPACK takes them all, but for a max pool or Pad that needs a PADV2, a Pad by reflection, POW,
LOG_SOFTMAX, a GATHER, conditions and choices by them, steps over other axes than pixels, and a
nearest Resize that does not repeat whole pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from deploykit.emit import tflite_float_choices as choices
from deploykit.emit import tflite_float_elementwise as elementwise
from deploykit.emit import tflite_float_linear as linear
from deploykit.emit import tflite_float_node as read
from deploykit.emit import tflite_float_numbers as numbers
from deploykit.emit import tflite_float_recurrent as recurrent
from deploykit.emit import tflite_float_reductions as reductions
from deploykit.emit import tflite_float_resize as resolution
from deploykit.emit import tflite_float_views as views
from deploykit.emit import tflite_float_windows as windows
from deploykit.emit.tflite_float_site import FloatSite


def lower(node: ir.Node, site: FloatSite) -> None:
    """Append one operator of the network to the graph."""
    if node in site.gelus:
        elementwise.spelled_gelu(node, site, site.gelus[node])
        return
    if node.op_type not in LOWER or node.domain not in {"", "ai.onnx"}:
        raise read.refuse(
            node,
            "this operator has no float TFLite form here",
            f"supported are {', '.join(LOWER)}: replace it in the network, or end the network "
            "before it",
        )
    LOWER[node.op_type](node, site)


LOWER: Mapping[str, Callable[[ir.Node, FloatSite], None]] = {
    "Abs": elementwise.unary,
    "Add": elementwise.binary,
    "And": choices.logic,
    "ArgMax": numbers.arg_max,
    "AveragePool": windows.average_pool,
    "BatchNormalization": reductions.batch_normalization,
    "Cast": choices.cast,
    "CastLike": elementwise.alias,
    "Clip": elementwise.clip,
    "Concat": views.concat,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "DepthToSpace": resolution.depth_to_space,
    "Div": elementwise.binary,
    "Dropout": elementwise.alias,
    "Elu": elementwise.elu,
    "Equal": choices.compare,
    "Exp": elementwise.unary,
    "Expand": elementwise.expand,
    "Flatten": views.reshape,
    "Gather": views.gather,
    "GRU": recurrent.gru,
    "GatherND": views.gather_nd,
    "Gelu": elementwise.gelu,
    "Gemm": linear.gemm,
    "GlobalAveragePool": reductions.global_pool,
    "GlobalMaxPool": reductions.global_pool,
    "Greater": choices.compare,
    "GreaterOrEqual": choices.compare,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.unary,
    "Identity": elementwise.alias,
    "InstanceNormalization": reductions.instance_normalization,
    "LSTM": recurrent.lstm,
    "LayerNormalization": reductions.layer_normalization,
    "LeakyRelu": elementwise.leaky_relu,
    "Less": choices.compare,
    "LessOrEqual": choices.compare,
    "Log": elementwise.unary,
    "LogSoftmax": reductions.softmax,
    "MatMul": linear.matmul,
    "Max": elementwise.binary,
    "MaxPool": windows.max_pool,
    "Min": elementwise.binary,
    "Mish": elementwise.mish,
    "Mul": elementwise.binary,
    "Neg": elementwise.unary,
    "Not": choices.logic,
    "Or": choices.logic,
    "PRelu": elementwise.prelu,
    "Pad": views.pad,
    "Pow": elementwise.power,
    "Reciprocal": elementwise.reciprocal,
    "ReduceMax": reductions.reduce,
    "ReduceMean": reductions.reduce,
    "ReduceMin": reductions.reduce,
    "ReduceSum": reductions.reduce,
    "Relu": elementwise.clip,
    "Reshape": views.reshape,
    "Resize": resolution.resize,
    "Sigmoid": elementwise.unary,
    "Slice": views.slice_,
    "Softmax": reductions.softmax,
    "Softplus": elementwise.softplus,
    "SpaceToDepth": resolution.space_to_depth,
    "Split": views.split,
    "Sqrt": elementwise.unary,
    "Squeeze": views.reshape,
    "Sub": elementwise.binary,
    "Tanh": elementwise.unary,
    "Transpose": views.transpose,
    "Unsqueeze": views.reshape,
    "Where": choices.where,
}
