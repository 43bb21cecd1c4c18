"""Every operator in every form that it is written in: what it computes, and what stands there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.runtime import litert
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.emit.float_checking import (
    TOLERANCE,
    difference,
    node_network,
    operators,
    outside_xnnpack,
)

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")

IMAGE = (1, 4, 6, 5)
TOKENS = (1, 7, 6)


@dataclass(frozen=True)
class Row:
    """nodes: in ONNX's text form, from x to y. codes: the file's operators."""

    nodes: tuple[str, ...]
    codes: str
    constants: Mapping[str, AnyArray] = field(default_factory=dict)
    shape: tuple[int, ...] = IMAGE
    opset: int = 20
    outputs: tuple[str, ...] = ("y",)

    def network(self) -> Network:
        """The row's network with the input x."""
        return node_network(self.nodes, {"x": self.shape}, self.constants, self.outputs, self.opset)


def weights(*shape: int) -> AnyArray:
    """Normal float32 numbers, equal every time."""
    return np.random.default_rng(7).normal(0, 1, shape).astype(np.float32)


def ints(*values: int) -> AnyArray:
    """A list of int64."""
    return np.array(values, dtype=np.int64)


def number(value: float) -> AnyArray:
    """A float32 scalar."""
    return np.array(value, dtype=np.float32)


def unary(operator: str, codes: str, shape: tuple[int, ...] = IMAGE) -> Row:
    """One operator without constants."""
    return Row((f"y = {operator} (x)",), codes, shape=shape)


def positive(operator: str, codes: str) -> Row:
    """One operator of something above zero."""
    return Row(("a = Abs (x)", "p = Add (a, c)", f"y = {operator} (p)"), codes, {"c": number(0.5)})


def resize(attributes: str, height: float, width: float, codes: str) -> Row:
    """A Resize by scales."""
    scales = np.array([1, 1, height, width], dtype=np.float32)
    return Row((f"y = Resize <{attributes}> (x, , s)",), codes, {"s": scales})


BATCHNORM = {
    "g": np.array([1, 2, -1, 0.5], dtype=np.float32),
    "b": weights(4),
    "m": weights(4),
    "v": np.array([1, 2, 3, 0.1], dtype=np.float32),
}
SHUFFLE = {"up": ints(1, 2, 2, 6, 5), "down": ints(1, 4, 6, 5)}

ROWS: Mapping[str, Row] = {
    "conv": Row(
        ("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)",),
        "CONV_2D",
        {"w": weights(8, 4, 3, 3), "b": weights(8)},
    ),
    "conv by groups": Row(
        ("y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w)",), "CONV_2D", {"w": weights(6, 2, 3, 3)}
    ),
    "conv depthwise": Row(
        ("y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)",),
        "DEPTHWISE_CONV_2D",
        {"w": weights(8, 1, 3, 3)},
    ),
    "conv over a sequence": Row(
        ("y = Conv <pads = [1, 1], strides = [2]> (x, w, b)",),
        "TRANSPOSE RESHAPE PAD CONV_2D RESHAPE TRANSPOSE",
        {"w": weights(5, 7, 3), "b": weights(5)},
        TOKENS,
    ),
    "pool over a sequence": unary(
        "MaxPool <kernel_shape = [2], strides = [2]>",
        "TRANSPOSE RESHAPE MAX_POOL_2D RESHAPE TRANSPOSE",
        TOKENS,
    ),
    "transposed conv k2 s2": Row(
        ("y = ConvTranspose <strides = [2, 2]> (x, w, b)",),
        "TRANSPOSE_CONV",
        {"w": weights(4, 3, 2, 2), "b": weights(3)},
    ),
    "transposed conv k4 s2 p1": Row(
        ("y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)",),
        "TRANSPOSE_CONV",
        {"w": weights(4, 3, 4, 4), "b": weights(3)},
    ),
    "transposed conv k3 s2 p1 o1": Row(
        (
            "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> "
            "(x, w)",
        ),
        "TRANSPOSE_CONV SLICE",
        {"w": weights(4, 3, 3, 3)},
    ),
    "transposed conv k3 s2": Row(
        ("y = ConvTranspose <strides = [2, 2]> (x, w)",),
        "TRANSPOSE_CONV",
        {"w": weights(4, 3, 3, 3)},
    ),
    "transposed conv k3 s1 p1": Row(
        ("y = ConvTranspose <pads = [1, 1, 1, 1]> (x, w)",),
        "TRANSPOSE_CONV",
        {"w": weights(4, 3, 3, 3)},
    ),
    "transposed conv k2 s3": Row(
        ("y = ConvTranspose <strides = [3, 3]> (x, w)",),
        "TRANSPOSE_CONV",
        {"w": weights(4, 3, 2, 2)},
    ),
    "transposed conv and relu": Row(
        ("t = ConvTranspose <strides = [2, 2]> (x, w)", "y = Relu (t)"),
        "TRANSPOSE_CONV RELU",
        {"w": weights(4, 3, 2, 2)},
    ),
    "max pool that SAME pads": unary(
        "MaxPool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]>", "MAX_POOL_2D"
    ),
    "average pool": unary(
        "AveragePool <kernel_shape = [2, 2], strides = [2, 1]>", "AVERAGE_POOL_2D"
    ),
    "average pool, pads counted": unary(
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>",
        "PAD AVERAGE_POOL_2D",
    ),
    "average pool, pads not counted": unary(
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>", "AVERAGE_POOL_2D"
    ),
    "average pool, pads of no SAME": unary(
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>",
        "PAD AVERAGE_POOL_2D MUL",
    ),
    "average pool, pads of no SAME counted": unary(
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], "
        "count_include_pad = 1>",
        "PAD AVERAGE_POOL_2D",
    ),
    "average pool in ceil mode": unary(
        "AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>", "AVERAGE_POOL_2D"
    ),
    "average pool in ceil mode, counted": unary(
        "AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, "
        "count_include_pad = 1>",
        "PAD AVERAGE_POOL_2D MUL",
    ),
    "global average pool": unary("GlobalAveragePool", "MEAN"),
    "global max pool": unary("GlobalMaxPool", "REDUCE_MAX"),
    "global average pool of a sequence": unary("GlobalAveragePool", "MEAN", TOKENS),
    "nearest by 2": resize(
        'mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"',
        2,
        2,
        "RESHAPE MUL RESHAPE",
    ),
    "nearest by 3 and 1": resize('mode = "nearest"', 3, 1, "RESHAPE MUL RESHAPE"),
    "nearest by 1.5": resize(
        'mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"',
        1.5,
        1,
        "RESIZE_NEAREST_NEIGHBOR",
    ),
    "linear half pixel": resize('mode = "linear"', 2, 2, "RESIZE_BILINEAR"),
    "linear aligned": resize(
        'mode = "linear", coordinate_transformation_mode = "align_corners"', 2, 2, "RESIZE_BILINEAR"
    ),
    "linear asymmetric": resize(
        'mode = "linear", coordinate_transformation_mode = "asymmetric"', 2, 2, "RESIZE_BILINEAR"
    ),
    "linear of pytorch": resize(
        'mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"',
        2,
        3,
        "RESIZE_BILINEAR",
    ),
    "linear to a size": Row(
        ('y = Resize <mode = "linear"> (x, , , s)',), "RESIZE_BILINEAR", {"s": ints(1, 4, 9, 8)}
    ),
    "depth to space": unary("DepthToSpace <blocksize = 2>", "DEPTH_TO_SPACE", (1, 12, 3, 4)),
    "depth to space of a conv, CRD": Row(
        (
            "c = Conv (x, w, b)",
            "r = Relu (c)",
            'y = DepthToSpace <blocksize = 2, mode = "CRD"> (r)',
        ),
        "CONV_2D+relu DEPTH_TO_SPACE",
        {"w": weights(12, 4, 1, 1), "b": weights(12)},
    ),
    "depth to space, CRD": unary(
        'DepthToSpace <blocksize = 2, mode = "CRD">',
        "RESHAPE TRANSPOSE RESHAPE DEPTH_TO_SPACE",
        (1, 12, 3, 4),
    ),
    "space to depth": unary("SpaceToDepth <blocksize = 2>", "SPACE_TO_DEPTH", (1, 3, 4, 6)),
    "abs": unary("Abs", "ABS"),
    "exp": unary("Exp", "EXP"),
    "neg": unary("Neg", "NEG"),
    "sigmoid": unary("Sigmoid", "LOGISTIC"),
    "tanh": unary("Tanh", "TANH"),
    "hard swish": unary("HardSwish", "HARD_SWISH"),
    "hard sigmoid of torch": unary("HardSigmoid <alpha = 0.16666667, beta = 0.5>", "ADD+relu6 MUL"),
    "hard sigmoid": unary("HardSigmoid", "ADD MAXIMUM MINIMUM MUL"),
    "gelu": unary("Gelu", "GELU"),
    "gelu by tanh": unary('Gelu <approximate = "tanh">', "GELU"),
    "leaky relu": unary("LeakyRelu <alpha = 0.1>", "LEAKY_RELU"),
    "elu": unary("Elu", "ELU"),
    "softplus": unary("Softplus", "ABS NEG EXP ADD LOG RELU ADD"),
    "mish": unary("Mish", "ABS NEG EXP ADD LOG RELU ADD TANH MUL"),
    "log": positive("Log", "ABS ADD LOG"),
    "sqrt": positive("Sqrt", "ABS ADD SQRT"),
    "reciprocal": positive("Reciprocal", "ABS ADD DIV"),
    "silu": Row(("s = Sigmoid (x)", "y = Mul (x, s)"), "LOGISTIC MUL"),
    "square": Row(("y = Pow (x, c)",), "SQUARE", {"c": number(2)}),
    "cube": Row(("y = Pow (x, c)",), "SQUARE MUL", {"c": number(3)}),
    "other power": Row(("a = Abs (x)", "y = Pow (a, c)"), "ABS POW", {"c": number(1.3)}),
    "prelu": Row(("y = PRelu (x, s)",), "PRELU", {"s": weights(4, 1, 1)}),
    "prelu of one slope": Row(("y = PRelu (x, s)",), "LEAKY_RELU", {"s": weights(1)}),
    "clip to -1, 1": Row(
        ("c = Conv (x, w)", "y = Clip (c, l, h)"),
        "CONV_2D+relu_n1_to_1",
        {"w": weights(4, 4, 1, 1), "l": number(-1), "h": number(1)},
    ),
    "clip to -1, 1 alone": Row(
        ("y = Clip (x, l, h)",), "RELU_N1_TO_1", {"l": number(-1), "h": number(1)}
    ),
    "gelu by erf": Row(
        ("d = Div (x, r)", "e = Erf (d)", "p = Add (e, one)", "m = Mul (x, p)", "y = Mul (m, h)"),
        "GELU",
        {"r": number(2**0.5), "one": number(1), "h": number(0.5)},
    ),
    "gelu by erf, half first": Row(
        ("d = Mul (x, r)", "e = Erf (d)", "p = Add (one, e)", "i = Mul (x, h)", "y = Mul (i, p)"),
        "GELU",
        {"r": number(0.5**0.5), "one": number(1), "h": number(0.5)},
    ),
    "gelu by erf, half of the sum": Row(
        ("d = Mul (x, r)", "e = Erf (d)", "p = Add (e, one)", "i = Mul (p, h)", "y = Mul (x, i)"),
        "GELU",
        {"r": number(0.5**0.5), "one": number(1), "h": number(0.5)},
    ),
    "add per channel": Row(("y = Add (x, c)",), "ADD", {"c": weights(1, 4, 1, 1)}),
    "subtract from a number": Row(("y = Sub (c, x)",), "SUB", {"c": number(1)}),
    "multiply per pixel": Row(("y = Mul (x, c)",), "MUL", {"c": weights(6, 5)}),
    "divide per row": Row(("y = Div (x, c)",), "DIV", {"c": np.abs(weights(1, 1, 6, 1)) + 1}),
    "maximum and minimum": Row(
        ("m = Max (x, c)", "y = Min (m, d)"),
        "MAXIMUM MINIMUM",
        {"c": weights(4, 1, 1) - 1, "d": number(1)},
    ),
    "multiply and relu": Row(
        ("m = Mul (x, c)", "y = Relu (m)"), "MUL+relu", {"c": weights(4, 1, 1)}
    ),
    "add a channel's number": Row(("a = GlobalAveragePool (x)", "y = Add (a, x)"), "MEAN ADD"),
    "add of another rank": Row(
        ("m = ReduceMean <keepdims = 0> (x, a)", "y = Add (x, m)"),
        "MEAN RESHAPE ADD",
        {"a": ints(0, 1)},
    ),
    "expand": Row(
        ("a = GlobalAveragePool (x)", "y = Expand (a, s)"), "MEAN MUL", {"s": ints(1, 4, 2, 3)}
    ),
    "batch norm": Row(("y = BatchNormalization (x, g, b, m, v)",), "MUL ADD", BATCHNORM),
    "batch norm and relu": Row(
        ("n = BatchNormalization (x, g, b, m, v)", "y = Relu (n)"), "MUL ADD+relu", BATCHNORM
    ),
    "mean over channels": Row(("y = ReduceMean (x, a)",), "MEAN", {"a": ints(1)}),
    "sum of tokens": Row(("y = ReduceSum <keepdims = 0> (x, a)",), "SUM", {"a": ints(1)}, TOKENS),
    "mean over rows, axes given before opset 18": Row(
        ("y = ReduceMean <axes = [2]> (x)",), "MEAN", opset=13
    ),
    "maximum over channels": Row(("y = ReduceMax (x, a)",), "REDUCE_MAX", {"a": ints(-3)}),
    "minimum over channels": Row(("y = ReduceMin (x, a)",), "REDUCE_MIN", {"a": ints(1)}),
    "softmax over channels": unary("Softmax <axis = 1>", "SOFTMAX"),
    "softmax over tokens": unary("Softmax", "SOFTMAX", TOKENS),
    "softmax over columns": unary("Softmax", "TRANSPOSE SOFTMAX TRANSPOSE"),
    "log-softmax over channels": unary("LogSoftmax <axis = 1>", "LOG_SOFTMAX"),
    "log-softmax over tokens": unary("LogSoftmax", "LOG_SOFTMAX", TOKENS),
    "log-softmax over columns": unary("LogSoftmax", "TRANSPOSE LOG_SOFTMAX TRANSPOSE"),
    "softmax before opset 13": Row(("y = Softmax (x)",), "SOFTMAX", shape=(3, 7), opset=11),
    "layer norm": Row(
        ("y = LayerNormalization (x, g, b)",),
        "MEAN SUB SQUARE MEAN ADD RSQRT MUL MUL ADD",
        {"g": weights(6), "b": weights(6)},
        TOKENS,
    ),
    "layer norm of an image": Row(
        ("y = LayerNormalization <axis = 1> (x, g)",),
        "MEAN SUB SQUARE MEAN ADD RSQRT MUL MUL",
        {"g": weights(4, 6, 5)},
    ),
    "instance norm": Row(
        ("y = InstanceNormalization (x, g, b)",),
        "MEAN SUB SQUARE MEAN ADD RSQRT MUL MUL ADD",
        {"g": weights(4), "b": weights(4)},
    ),
    "linear over tokens": Row(
        ("m = MatMul (x, w)", "y = Add (b, m)"),
        "FULLY_CONNECTED",
        {"w": weights(6, 9), "b": weights(9)},
        TOKENS,
    ),
    "linear over tokens and relu": Row(
        ("m = MatMul (x, w)", "a = Add (m, b)", "y = Relu (a)"),
        "FULLY_CONNECTED+relu",
        {"w": weights(6, 9), "b": weights(9)},
        TOKENS,
    ),
    "linear over tokens and a position": Row(
        ("m = MatMul (x, w)", "y = Add (m, b)"),
        "FULLY_CONNECTED ADD",
        {"w": weights(6, 9), "b": weights(7, 9)},
        TOKENS,
    ),
    "matmul by a constant stack": Row(
        ("y = MatMul (x, w)",), "BATCH_MATMUL", {"w": weights(1, 6, 3)}, TOKENS
    ),
    "matmul of a constant": Row(
        ("y = MatMul (w, x)",), "BATCH_MATMUL", {"w": weights(1, 3, 7)}, TOKENS
    ),
    "matrix on the left": Row(("y = MatMul (w, x)",), "BATCH_MATMUL", {"w": weights(3, 7)}, TOKENS),
    "matmul of activations": Row(
        ("t = Transpose <perm = [0, 2, 1]> (x)", "y = MatMul (x, t)"), "BATCH_MATMUL", shape=TOKENS
    ),
    "matmul by itself": Row(("y = MatMul (x, x)",), "RESHAPE BATCH_MATMUL", shape=(1, 7, 7)),
    "matmul, left transposed": Row(
        ("t = Transpose <perm = [0, 2, 1]> (x)", "y = MatMul (t, x)"), "BATCH_MATMUL", shape=TOKENS
    ),
    "heads": Row(
        (
            "h = Reshape (x, s)",
            "q = Transpose <perm = [0, 2, 1, 3]> (h)",
            "k = Transpose <perm = [0, 2, 3, 1]> (h)",
            "m = MatMul (q, k)",
            "p = Softmax (m)",
            "a = MatMul (p, q)",
            "t = Transpose <perm = [0, 2, 1, 3]> (a)",
            "y = Reshape (t, r)",
        ),
        "RESHAPE TRANSPOSE BATCH_MATMUL SOFTMAX BATCH_MATMUL TRANSPOSE RESHAPE",
        {"s": ints(1, 7, 2, 3), "r": ints(1, 7, 6)},
        TOKENS,
    ),
    "patches to tokens": Row(
        ("v = Reshape (x, s)", "y = Transpose <perm = [0, 2, 1]> (v)"),
        "RESHAPE",
        {"s": ints(1, 4, 30)},
    ),
    "tokens to an image": Row(
        ("t = Transpose <perm = [0, 2, 1]> (x)", "y = Reshape (t, s)"),
        "RESHAPE",
        {"s": ints(1, 6, 7, 1)},
        TOKENS,
    ),
    "transposes that cancel": Row(
        (
            "t = Transpose <perm = [0, 2, 3, 1]> (x)",
            "r = Relu (t)",
            "y = Transpose <perm = [0, 3, 1, 2]> (r)",
        ),
        "RELU",
    ),
    "channel shuffle": Row(
        (
            "v = Reshape (x, up)",
            "t = Transpose <perm = [0, 2, 1, 3, 4]> (v)",
            "y = Reshape (t, down)",
        ),
        "RESHAPE TRANSPOSE RESHAPE",
        SHUFFLE,
    ),
    "channel shuffle by gather": Row(
        ("y = Gather <axis = 1> (x, i)",), "RESHAPE TRANSPOSE RESHAPE", {"i": ints(0, 2, 1, 3)}
    ),
    "flatten": unary("Flatten", "TRANSPOSE RESHAPE"),
    "flatten from axis 2": unary("Flatten <axis = 2>", "RESHAPE", (1, 1, 6, 5)),
    "gate from a vector": Row(
        (
            "m = ReduceMean <keepdims = 0> (x, a)",
            "g = Sigmoid (m)",
            "v = Unsqueeze (g, u)",
            "y = Mul (x, v)",
        ),
        "MEAN LOGISTIC RESHAPE MUL",
        {"a": ints(2, 3), "u": ints(2, 3)},
    ),
    "squeeze": Row(
        ("m = GlobalAveragePool (x)", "y = Squeeze (m, a)"), "MEAN RESHAPE", {"a": ints(2, 3)}
    ),
    "concat": Row(("r = Relu (x)", "y = Concat <axis = 1> (x, r)"), "RELU CONCATENATION"),
    "concat of columns": Row(
        ("r = Relu (x)", "y = Concat <axis = -1> (x, r)"), "RELU CONCATENATION"
    ),
    "concat of a constant": Row(
        ("y = Concat <axis = 1> (c, x)",), "CONCATENATION", {"c": weights(1, 2, 6)}, TOKENS
    ),
    "concat of seven": Row(
        ("r = Relu (x)", "y = Concat <axis = 1> (x, r, x, r, r, r, x)"),
        "RELU CONCATENATION CONCATENATION",
    ),
    "concats that begin alike": Row(
        (
            "r = Relu (x)",
            "a = Concat <axis = 1> (x, r, x, r, r, x)",
            "b = Concat <axis = 1> (x, r, x, r, r, x, r)",
            "y = Concat <axis = 1> (a, b)",
        ),
        "RELU CONCATENATION CONCATENATION CONCATENATION CONCATENATION",
    ),
    "split": Row(("y, z = Split <axis = 1, num_outputs = 2> (x)",), "SPLIT", outputs=("y", "z")),
    "split of unequal parts": Row(
        ("y, z = Split <axis = 1> (x, s)",), "SLICE SLICE", {"s": ints(1, 3)}, outputs=("y", "z")
    ),
    "split into six": Row(
        ("a, b, c, d, e, f = Split <axis = 2, num_outputs = 6> (x)", "y = Add (a, f)"),
        "SLICE SLICE ADD",
    ),
    "slice of channels": Row(
        ("y = Slice (x, s, e, a)",), "SLICE", {"s": ints(1), "e": ints(3), "a": ints(1)}
    ),
    "slice from the end": Row(
        ("y = Slice (x, s, e, a)",), "SLICE", {"s": ints(-3, 1), "e": ints(-1, 99), "a": ints(2, 3)}
    ),
    "slice before opset 10": Row(
        ("y = Slice <axes = [1], starts = [1], ends = [3]> (x)",), "SLICE", opset=9
    ),
    "slice by steps over pixels": Row(
        ("y = Slice (x, s, e, a, t)",),
        "SLICE DEPTHWISE_CONV_2D",
        {"s": ints(1, 0), "e": ints(99, 99), "a": ints(2, 3), "t": ints(2, 2)},
    ),
    "slice by steps over channels": Row(
        ("y = Slice (x, s, e, a, t)",),
        "SLICE STRIDED_SLICE",
        {"s": ints(0), "e": ints(99), "a": ints(1), "t": ints(2)},
    ),
    "slice of everything": Row(
        ("y = Slice (x, s, e, a)", "z = Relu (y)"),
        "RELU",
        {"s": ints(0), "e": ints(99), "a": ints(1)},
        outputs=("z",),
    ),
    "gather of one token": Row(
        ("y = Gather <axis = 1> (x, i)",), "SLICE RESHAPE", {"i": np.array(0)}, TOKENS
    ),
    "gather of the last channel": Row(
        ("y = Gather <axis = 1> (x, i)",), "SLICE RESHAPE", {"i": np.array(-1)}
    ),
    "gather of a range": Row(("y = Gather <axis = 1> (x, i)",), "SLICE", {"i": ints(1, 2)}),
    "gather of a few runs": Row(
        ("y = Gather <axis = 1> (x, i)",), "SLICE SLICE CONCATENATION", {"i": ints(2, 3, 0)}
    ),
    "gather of channels": Row(
        ("y = Gather <axis = 1> (x, i)",),
        "CONV_2D",
        {"i": ints(9, 1, 4, 4, 8, 0, 3)},
        (1, 10, 3, 4),
    ),
    "gather of many channels": Row(
        ("y = Gather <axis = 1> (x, i)",), "GATHER", {"i": ints(*range(0, 400, 3))}, (1, 400, 3, 4)
    ),
    "gather of tokens": Row(
        ("y = Gather <axis = 1> (x, i)",), "GATHER", {"i": ints(6, 1, 4, 2, 0, 5, 3)}, TOKENS
    ),
    "gather by nd": Row(
        (
            "t = Transpose <perm = [1, 0, 2, 3]> (x)",
            "g = GatherND (t, i)",
            "y = Transpose <perm = [1, 0, 2, 3]> (g)",
        ),
        "SLICE SLICE CONCATENATION",
        {"i": np.array([[3], [0]])},
    ),
    "pad": Row(("y = Pad (x, p)",), "PAD", {"p": ints(0, 0, 1, 0, 0, 2, 0, 3)}),
    "pad of chosen axes": Row(("y = Pad (x, p, , a)",), "PAD", {"p": ints(1, 2), "a": ints(1)}),
    "pad by a number": Row(
        ("y = Pad (x, p, v)",), "PADV2", {"p": ints(0, 0, 1, 0, 0, 2, 0, 3), "v": number(-1)}
    ),
    "pad below zero": Row(("y = Pad (x, p)",), "SLICE PAD", {"p": ints(0, 0, -1, 0, 0, 0, 0, 2)}),
    "pad by reflection": Row(
        ('y = Pad <mode = "reflect"> (x, p)',), "MIRROR_PAD", {"p": ints(0, 0, 1, 2, 0, 0, 1, 2)}
    ),
    "a cast constant": Row(
        ("k = CastLike (c, x)", "y = Mul (x, k)"), "MUL", {"c": np.array([2], dtype=np.float64)}
    ),
    "choice": Row(
        ("g = Greater (x, k)", "n = Not (g)", "y = Where (n, x, c)"),
        "GREATER LOGICAL_NOT SELECT_V2",
        {"k": number(0.1), "c": weights(4, 1, 1)},
    ),
    "choice by channel": Row(
        ("m = GlobalAveragePool (x)", "g = LessOrEqual (m, k)", "y = Where (g, x, m)"),
        "MEAN LESS_EQUAL SELECT_V2",
        {"k": number(0.1)},
    ),
    "mask": Row(
        (
            "g = GreaterOrEqual (x, k)",
            "l = Less (x, s)",
            "b = And (g, l)",
            "o = Or (b, h)",
            "y = Cast <to = 1> (o)",
        ),
        "GREATER_EQUAL LESS LOGICAL_AND LOGICAL_OR CAST",
        {"k": number(-0.2), "s": number(0.3), "h": np.arange(6) % 2 > 0},
        (1, 4, 3, 6),
    ),
    "equal": Row(
        ("m = ReduceMax (x, a)", "e = Equal (x, m)", "y = Where (e, x, z)"),
        "REDUCE_MAX EQUAL SELECT_V2",
        {"a": ints(1), "z": number(0)},
    ),
    "linear over a sequence": Row(
        ('y = Resize <mode = "linear"> (x, , s)',),
        "TRANSPOSE RESHAPE RESIZE_BILINEAR RESHAPE TRANSPOSE",
        {"s": np.array([1, 1, 1.5], dtype=np.float32)},
        TOKENS,
    ),
    "nearest over a sequence": Row(
        ("y = Resize (x, , s)",),
        "TRANSPOSE RESHAPE MUL RESHAPE RESHAPE TRANSPOSE",
        {"s": np.array([1, 1, 2], dtype=np.float32)},
        TOKENS,
    ),
    "dropout": Row(("d = Dropout (x)", "y = Relu (d)"), "RELU"),
}

GAPS = {
    "choice": "GREATER LOGICAL_NOT SELECT_V2",
    "choice by channel": "LESS_EQUAL SELECT_V2",
    "equal": "EQUAL SELECT_V2",
    "gather of many channels": "GATHER",
    "gather of tokens": "GATHER",
    "log-softmax over channels": "LOG_SOFTMAX",
    "log-softmax over columns": "LOG_SOFTMAX",
    "log-softmax over tokens": "LOG_SOFTMAX",
    "mask": "CAST GREATER_EQUAL LESS LOGICAL_AND LOGICAL_OR",
    "nearest by 1.5": "RESIZE_NEAREST_NEIGHBOR",
    "other power": "POW",
    "pad by a number": "PADV2",
    "pad by reflection": "MIRROR_PAD",
    "slice by steps over channels": "STRIDED_SLICE",
}
"""What XNNPACK of LiteRT 2.3.0 leaves to the builtin kernels, by row."""


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_computes_and_how(name: str) -> None:
    network = ROWS[name].network()
    data = write_float_tflite(network)
    assert difference(network, data) < TOLERANCE
    assert operators(data) == ROWS[name].codes.split()


@pytest.mark.parametrize("name", ROWS)
def test_what_xnnpack_takes(name: str) -> None:
    data = write_float_tflite(ROWS[name].network())
    assert outside_xnnpack(data) == sorted(GAPS.get(name, "").split())


def test_several_outputs_and_inputs() -> None:
    network = node_network(
        ("s = Add (a, b)", "y = Relu (s)", "z = Flatten (s)"),
        {"a": (1, 3, 4, 5), "b": (1, 3, 1, 1)},
        outputs=("y", "z", "s"),
    )
    assert difference(network) < TOLERANCE
