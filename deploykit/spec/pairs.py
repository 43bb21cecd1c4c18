"""Pairs of weights whose products an x86 processor without VNNI adds in 16 bits.

ONNX Runtime's kernels of uint8 times int8 multiply there with VPMADDUBSW: two products are added in
int16 and saturate; AVX2 and AVX-512 alike, in convolutions and linears. VNNI, ARM, x86 without AVX2
and LiteRT add in 32 bits.

    kernel                 order of the products                          pairs
    convolution            kernel position, then channel of the group     2j and 2j + 1
    linear                 input feature                                  2j and 2j + 1
    depthwise convolution  each is widened on its own                     none

Inputs reach 255, so products of weights a and b of one sign fit where |a| + |b| <= 128:
255 * 128 = 32,640 and 255 * 129 = 32,895, and int16 ends at 32,767. Of two signs they always fit.
Source: mlas/lib/convsym.cpp, mlas/lib/amd64/QgemmU8S8KernelAvx2.asm and qlinearconv.cc of ONNX
Runtime; tests/x86 runs every case of the suite on such a processor, emulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import numpy as np

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.stem import Runtime, stems_as_blocks

LARGEST_PAIR = 128
"""Sum of two weights of one sign whose products still fit int16, whatever the inputs."""


class Target(Enum):
    """Processors for whose 16-bit sums weights are planned; without one, weights fill 8 bits."""

    X86_AVX2 = "x86-avx2"
    ANY = "any"


VNNI = frozenset(("avx512_vnni", "avx_vnni"))


def adds_in_16_bits(flags: frozenset[str]) -> bool:
    """Whether ONNX Runtime's integer kernels do so on a processor with these flags of Linux."""
    return "avx2" in flags and not flags & VNNI


def pair_sums(weight: AnyArray, groups: int) -> Float64Array:
    """Largest |a| + |b| of a pair of one sign, a single weight included.   [O]

    weight: [O, I/groups, kh, kw] or [O, I], integers or reals. Zeros where no products are paired.
    """
    outputs, inputs = weight.shape[:2]
    if weight.ndim > 2 and inputs == 1 and groups == outputs:
        return np.zeros(outputs)
    ordered = np.moveaxis(weight.astype(np.float64), 1, -1).reshape(outputs, -1)
    even = np.pad(ordered, ((0, 0), (0, ordered.shape[1] % 2)))
    pairs = even.reshape(outputs, -1, 2)
    sums = [np.maximum(sign * pairs, 0.0).sum(axis=2) for sign in (1, -1)]
    return np.asarray(np.maximum(*sums).max(axis=1, initial=0.0))


def largest_pairs(network: QuantizedNetwork) -> Iterator[tuple[str, int]]:
    """(tensor computed, largest pair) of each convolution and linear, in running order.

    Of the weights as ONNX Runtime's file holds them, stems as blocks of pixels.
    """
    written, _ = stems_as_blocks(network, Runtime.ONNXRUNTIME)
    for operator in written.operators:
        if isinstance(operator, Conv | Linear):
            groups = operator.groups if isinstance(operator, Conv) else 1
            yield operator.output, int(pair_sums(operator.weight.values, groups).max(initial=0.0))
