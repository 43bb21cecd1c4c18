"""Versions of TFLite operators, and the first release that runs each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from deploykit.emit.tflite_graph import TfliteOperator, TfliteTensor


class OperatorVersion(NamedTuple):
    """Version of an operator and the first TensorFlow Lite release that runs it."""

    version: int
    since: str


OPERATOR_VERSIONS = {
    "ADD": OperatorVersion(2, "1.14.0"),
    "ARG_MAX": OperatorVersion(2, "1.14.0"),
    "CAST": OperatorVersion(1, "1.5.0"),
    "CONCATENATION": OperatorVersion(2, "1.14.0"),
    "CONV_2D": OperatorVersion(3, "1.14.0"),
    "CONV_2D/grouped": OperatorVersion(6, "2.9.0"),
    "CONV_2D/int4": OperatorVersion(7, "2.11.0"),
    "DEPTHWISE_CONV_2D": OperatorVersion(3, "1.14.0"),
    "DEPTH_TO_SPACE": OperatorVersion(1, "2.1.0"),
    "DEQUANTIZE": OperatorVersion(2, "1.14.0"),
    "ELU": OperatorVersion(1, "2.1.0"),
    "EQUAL": OperatorVersion(1, "1.14.0"),
    "EXP": OperatorVersion(2, "2.12.0"),
    "FULLY_CONNECTED": OperatorVersion(4, "1.14.0"),
    "FULLY_CONNECTED/blockwise": OperatorVersion(13, "2.18.0"),
    "FULLY_CONNECTED/dynamic": OperatorVersion(12, "2.17.0"),
    "FULLY_CONNECTED/int2": OperatorVersion(10, "2.11.0"),
    "FULLY_CONNECTED/int4": OperatorVersion(10, "2.11.0"),
    "GATHER": OperatorVersion(2, "1.14.0"),
    "GELU": OperatorVersion(2, "2.9.0"),
    "GREATER": OperatorVersion(1, "1.14.0"),
    "GREATER_EQUAL": OperatorVersion(1, "1.14.0"),
    "LEAKY_RELU": OperatorVersion(2, "2.3.0"),
    "LESS": OperatorVersion(1, "1.14.0"),
    "LESS_EQUAL": OperatorVersion(1, "1.14.0"),
    "LOGICAL_AND": OperatorVersion(1, "1.11.0"),
    "LOGICAL_NOT": OperatorVersion(1, "1.11.0"),
    "LOGICAL_OR": OperatorVersion(1, "1.11.0"),
    "LOGISTIC": OperatorVersion(2, "1.14.0"),
    "MAXIMUM": OperatorVersion(2, "1.14.0"),
    "MAX_POOL_2D": OperatorVersion(2, "1.14.0"),
    "MEAN": OperatorVersion(2, "1.14.0"),
    "MINIMUM": OperatorVersion(2, "1.14.0"),
    "MUL": OperatorVersion(2, "1.14.0"),
    "PAD": OperatorVersion(2, "1.14.0"),
    "PADV2": OperatorVersion(2, "1.14.0"),
    "QUANTIZE": OperatorVersion(1, "1.14.0"),
    "RESHAPE": OperatorVersion(1, "1.5.0"),
    "RESIZE_NEAREST_NEIGHBOR": OperatorVersion(2, "1.14.0"),
    "SELECT_V2": OperatorVersion(1, "2.2.0"),
    "SLICE": OperatorVersion(2, "1.14.0"),
    "SPACE_TO_DEPTH": OperatorVersion(2, "1.14.0"),
    "STRIDED_SLICE": OperatorVersion(2, "1.14.0"),
    "SUB": OperatorVersion(2, "1.14.0"),
    "TANH": OperatorVersion(2, "1.14.0"),
    "TRANSPOSE": OperatorVersion(2, "1.14.0"),
    "TRANSPOSE/rank5": OperatorVersion(4, "2.3.0"),
    "TRANSPOSE/rank6": OperatorVersion(6, "2.16.0"),
}
"""By code, or code/variant; of int8 operators, and of those that FLOAT_VERSIONS lacks.

Source: op_version.cc and runtime_version.cc in tensorflow/lite/tools/versioning.
"""

FLOAT_VERSIONS = {
    "ABS": OperatorVersion(1, "1.13.0"),
    "ADD": OperatorVersion(1, "1.5.0"),
    "ARG_MAX": OperatorVersion(1, "1.9.0"),
    "AVERAGE_POOL_2D": OperatorVersion(1, "1.5.0"),
    "BATCH_MATMUL": OperatorVersion(1, "2.3.0"),
    "CONCATENATION": OperatorVersion(1, "1.5.0"),
    "CONV_2D": OperatorVersion(1, "1.5.0"),
    "DEPTHWISE_CONV_2D": OperatorVersion(2, "1.12.0"),  # the first that knows dilations
    "DEPTH_TO_SPACE": OperatorVersion(1, "2.1.0"),
    "DIV": OperatorVersion(1, "1.6.0"),
    "ELU": OperatorVersion(1, "1.14.0"),
    "EXP": OperatorVersion(1, "1.7.0"),
    "FULLY_CONNECTED": OperatorVersion(1, "1.5.0"),
    "FULLY_CONNECTED/keep_num_dims": OperatorVersion(5, "2.0.0"),
    "GATHER": OperatorVersion(1, "1.6.0"),
    "GELU": OperatorVersion(1, "2.9.0"),
    "HARD_SWISH": OperatorVersion(1, "1.15.0"),
    "LEAKY_RELU": OperatorVersion(1, "1.13.1"),
    "LOG": OperatorVersion(1, "1.14.0"),
    "LOG_SOFTMAX": OperatorVersion(1, "1.14.0"),
    "LOGISTIC": OperatorVersion(1, "1.14.0"),
    "MAXIMUM": OperatorVersion(1, "1.14.0"),
    "MAX_POOL_2D": OperatorVersion(1, "1.5.0"),
    "MEAN": OperatorVersion(1, "1.6.0"),
    "MINIMUM": OperatorVersion(1, "1.14.0"),
    "MIRROR_PAD": OperatorVersion(1, "1.13.1"),
    "MUL": OperatorVersion(1, "1.5.0"),
    "NEG": OperatorVersion(1, "1.9.0"),
    "PAD": OperatorVersion(1, "1.5.0"),
    "PAD/rank5": OperatorVersion(4, "2.6.0"),
    "PADV2": OperatorVersion(1, "1.9.0"),
    "PADV2/rank5": OperatorVersion(4, "2.6.0"),
    "POW": OperatorVersion(1, "1.10.0"),
    "PRELU": OperatorVersion(1, "1.8.0"),
    "REDUCE_MAX": OperatorVersion(1, "1.11.0"),
    "REDUCE_MIN": OperatorVersion(1, "1.11.0"),
    "RELU": OperatorVersion(1, "1.5.0"),
    "RELU6": OperatorVersion(1, "1.5.0"),
    "RELU_N1_TO_1": OperatorVersion(1, "1.5.0"),
    "RESIZE_BILINEAR": OperatorVersion(1, "1.7.0"),
    "RESIZE_BILINEAR/half_pixel": OperatorVersion(3, "2.2.0"),
    "RESIZE_NEAREST_NEIGHBOR": OperatorVersion(1, "1.13.1"),
    "RESIZE_NEAREST_NEIGHBOR/centers": OperatorVersion(3, "2.3.0"),
    "RSQRT": OperatorVersion(1, "1.10.0"),
    "SLICE": OperatorVersion(1, "1.14.0"),
    "SLICE/rank5": OperatorVersion(5, "2.5.0"),
    "SOFTMAX": OperatorVersion(1, "1.5.0"),
    "SPACE_TO_DEPTH": OperatorVersion(1, "1.5.0"),
    "SPLIT": OperatorVersion(1, "1.5.0"),
    "SQRT": OperatorVersion(1, "1.10.0"),
    "SQUARE": OperatorVersion(1, "1.12.0"),
    "STRIDED_SLICE": OperatorVersion(1, "1.6.0"),
    "STRIDED_SLICE/rank5": OperatorVersion(4, "2.2.0"),
    "SUB": OperatorVersion(1, "1.6.0"),
    "SUM": OperatorVersion(1, "1.10.0"),
    "TANH": OperatorVersion(1, "1.14.0"),
    "TRANSPOSE": OperatorVersion(1, "1.6.0"),
    "TRANSPOSE/rank5": OperatorVersion(4, "2.3.0"),
    "TRANSPOSE/rank6": OperatorVersion(6, "2.16.0"),
    "TRANSPOSE_CONV": OperatorVersion(3, "2.3.0"),
}
"""The same where an operator reads and gives float32. rank5: and every rank above 4."""


def operator_version(operator: TfliteOperator, tensors: Sequence[TfliteTensor]) -> OperatorVersion:
    """By the element types that the operator reads and gives.

    Parameters (axes, shapes) are int32 and may come first.
    """
    read = (tensors[index].dtype for index in operator.inputs)
    source = next((dtype for dtype in read if dtype != np.dtype(np.int32)), np.dtype(np.int32))
    types = {source, *(tensors[index].dtype for index in operator.outputs)}
    if types == {np.dtype(np.float32)} and operator.code in FLOAT_VERSIONS:
        return FLOAT_VERSIONS[operator.code]
    return OPERATOR_VERSIONS[operator.code]


def oldest_runtime(versions: Iterable[OperatorVersion]) -> str:
    """The release that runs all of them."""
    releases = ["1.5.0", *(version.since for version in versions)]
    return max(releases, key=_numbers)


def age(version: OperatorVersion) -> tuple[int, list[int]]:
    """What versions of one operator are ordered by."""
    return version.version, _numbers(version.since)


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]
