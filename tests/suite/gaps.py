"""What a runtime leaves in float, or out of its fast kernels, and why it is written all the same.

ms: of 200,704 numbers, int8 / float, one thread of an AVX512-VNNI machine: read ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gap:
    """kernel: who computes it. version: in which that was measured."""

    kernel: str
    reason: str
    version: str


ORT, LITERT = "onnxruntime", "litert"
ORT_VERSION, LITERT_VERSION = "1.32.0", "2.3.0"
IN_FLOAT = "QuantizeLinear"
"""What computes an integer tensor in ONNX Runtime where nothing was fused."""


def _ort(reason: str) -> Gap:
    return Gap(IN_FLOAT, reason, ORT_VERSION)


def _litert(kernel: str, reason: str) -> Gap:
    return Gap(kernel, reason, LITERT_VERSION)


GAPS: Mapping[tuple[str, str], frozenset[Gap]] = {
    (ORT, "Lookup tanh"): frozenset({_ort("no integer Tanh: 0.10 / 0.06 ms")}),
    (ORT, "Lookup elu"): frozenset({_ort("no integer Elu")}),
    (ORT, "Lookup gelu"): frozenset({_ort("no integer Gelu: 0.30 ms")}),
    (ORT, "Lookup gelu_tanh"): frozenset({_ort("no integer Gelu: 0.30 ms")}),
    **{
        (ORT, f"Lookup {name}"): frozenset({_ort(why)})
        for name, why in {
            "exp": "no integer Exp: 0.08 / 0.04 ms",
            "erf": "no integer Erf: 0.15 / 0.11 ms",
            "softsign": "no integer one: 0.09 / 0.05 ms",
        }.items()
    },
    **{
        (LITERT, f"Lookup {name}"): frozenset({_litert("GATHER", "no operator: a table, 0.8 ms")})
        for name in ("erf", "mish", "power", "softplus", "softsign", "thresholded")
    },
    (LITERT, "Lookup exp"): frozenset({_litert("EXP", "XNNPACK has none in int8: 0.06 / 0.04 ms")}),
    (LITERT, "Clamp"): frozenset(
        {_litert("MINIMUM", "XNNPACK has none in int8; the builtin one is as fast: 0.007 ms")}
    ),
    (LITERT, "Maximum"): frozenset({_litert("MAXIMUM", "the same: 0.006 / 0.026 ms")}),
    (LITERT, "Minimum"): frozenset({_litert("MINIMUM", "the same: 0.007 / 0.026 ms")}),
    (LITERT, "Gather"): frozenset({_litert("GATHER", "XNNPACK has none")}),
    (LITERT, "Embedding"): frozenset(
        {_litert("GATHER", "XNNPACK has none; the builtin one is as fast: 0.008 / 0.019 ms")}
    ),
    (LITERT, "ArgMax"): frozenset(
        {
            _litert("ARG_MAX", "XNNPACK has none; the builtin one is as fast: 0.029 / 0.067 ms"),
            _litert("RESHAPE", "of whole numbers, where the axis is kept"),
        }
    ),
    (LITERT, "Lookup gelu"): frozenset({_litert("GELU", "XNNPACK has none in int8: 0.09 ms")}),
    (LITERT, "Lookup gelu_tanh"): frozenset({_litert("GELU", "XNNPACK has none in int8: 0.09 ms")}),
    (LITERT, "Pad"): frozenset(
        {_litert("PADV2", "XNNPACK has PAD alone, which belongs to a window")}
    ),
    (LITERT, "Repeat"): frozenset({_litert("RESIZE_NEAREST_NEIGHBOR", "XNNPACK has none")}),
    (LITERT, "Slice"): frozenset(
        {_litert("STRIDED_SLICE", "XNNPACK takes no steps; without them it is a SLICE")}
    ),
}
"""By runtime and operator of the integer network, where another kernel than a fast one runs."""

FLOAT_IN_ORT: Mapping[str, str] = {
    "Abs": "written as a product with -1 and Max: 0.05 / 0.07 ms unfused",
    "Celu": "written as products and Elu",
    "Max": "written on the integers, constants by channel too: 0.009 / 0.10 ms unfused",
    "Min": "written on the integers: 0.009 / 0.10 ms unfused",
    "Neg": "written as a product with -1: 0.04 / 0.07 ms unfused",
    "PRelu": "written as Clip, a depthwise convolution and a sum",
    "ReduceMean": "written as a depthwise convolution, or a global average pool",
    "Selu": "written as Elu and LeakyRelu: 0.42 ms unfused",
    "Sub": "written as a sum with the mirror image: 0.04 / 0.10 ms unfused",
    "Erf": "a Lookup, its 256 integers proved",
    "Exp": "the same",
    "Log": "no integer form yet",
    "Softplus": "written as a table: 1.5 / 2.2 to 6.3 ms unfused",
    "Softsign": "the same",
    "Sqrt": "no integer form yet",
    "ThresholdedRelu": "written as a table",
}
"""ONNX operators that ONNX Runtime does not fuse with their DequantizeLinear and QuantizeLinear."""
