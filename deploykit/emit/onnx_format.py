"""What the ONNX writer, reader and probe agree on, and nothing more.

Activations are uint8 in the file: ORT on x86 leaves int8 activations unfused. The integers are
those of the network shifted by 128, which changes nothing in (q - zero point).
"""

from __future__ import annotations

OPSET = 13
"""The first with per-channel DequantizeLinear; later ones are written where an operator asks."""

IR_VERSION = 8

SLOPE_SHRINKS = 2.0**-18
"""ORT rounds half to even, XNNPACK half up: a slope this much flatter has no ties."""


def onnx_alpha(slope: int) -> float:
    """The attribute of a LeakyRelu whose slope is slope/256.

    The 256 products are multiples of 1/256 and, where they stay in range, under 2^8: they move by
    at most 2^-10, so that only ties do not round as they are.
    """
    return slope / 256 * (1.0 - SLOPE_SHRINKS)


CHANNELS = 1


def turns(axis: int, rank: int) -> bool:
    """Whether a Gather stands between two Transposes: along the last axis, not the channels."""
    return axis == rank - 1 != CHANNELS


def turning(rank: int) -> tuple[list[int], list[int]]:
    """The last axis in the place of the channels, and back. turning(4) -> ([0,3,1,2], [0,2,3,1])"""
    middle = list(range(CHANNELS, rank - 1))
    return [0, rank - 1, *middle], [0, *(axis + 1 for axis in middle), CHANNELS]


PRODUCER = "deploykit"

BATCH_SYMBOL = "batch"
"""Name of the first axis where a file takes any batch."""


def rows_symbol(rows: int) -> str:
    """Name of the first axis of a tensor with rows for each sample. rows_symbol(4) -> "4*batch" """
    return BATCH_SYMBOL if rows == 1 else f"{rows}*{BATCH_SYMBOL}"


def rows_of(symbol: str) -> int | None:
    """The number in a name of `rows_symbol`, None for another name. rows_of("4*batch") -> 4"""
    number, star, name = symbol.rpartition("*")
    if name != BATCH_SYMBOL or (star and not number.isdecimal()):
        return None
    return int(number) if star else 1


TENSOR_KEY = "deploykit.tensor:"
"""Metadata key prefix: the ONNX name of an integer tensor, where it is not the network's own."""

RUNTIME_KEY = "deploykit.min_onnxruntime"
"""Metadata key: the oldest ONNX Runtime that loads the file, see spec.oldest."""

STEM_KEY = "deploykit.stem:"
"""Metadata key prefix: the uint8 result of a convolution over blocks of pixels; see spec.stem."""

REGION_KEY = "deploykit.region:"
"""Metadata key prefix: the uint8 result of an island or a rearrangement; the value is JSON."""

SCALE_PARAMETER = "SCALE_TENSOR"
ZERO_POINT_PARAMETER = "ZERO_POINT_TENSOR"
"""The keys of onnx.TensorAnnotation that the ONNX specification reserves for quantization."""
