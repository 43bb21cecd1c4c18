"""One list of operator cases; every runtime and every writer runs all of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploykit.spec.arrays import Int8Array
from deploykit.spec.quantized import IoType, QuantizedNetwork, Window
from tests.suite.building import Builder


@dataclass(frozen=True)
class Case:
    """A named network of one or a few operators. shape: of its one input, without the batch."""

    name: str
    shape: tuple[int, ...]
    build: Callable[[Builder], str]
    samples: int = 4

    def network(self, io: IoType = IoType.FLOAT) -> QuantizedNetwork:
        """The network; the same at every call."""
        builder = Builder(self._rng(), (1, *self.shape))
        output = self.build(builder)
        return replace(builder.network(output), io=io)

    def inputs(self) -> Mapping[str, Int8Array]:
        """int8 [samples, ...] for the port `input`, both ends of the range included."""
        drawn = self._rng().integers(-128, 128, (self.samples, *self.shape)).astype(np.int8)
        drawn.reshape(-1)[:2] = (-128, 127)
        return {"input": drawn}

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.name.encode()))


def square(kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> Window:
    """A window that is the same in both directions."""
    return Window((kernel, kernel), (stride, stride), (pad,) * 4, (dilation, dilation))


def residual(build: Builder) -> str:
    """conv, conv, sum with the way around, and a conv behind it."""
    trunk = build.conv(build.input, 16, square(3, pad=1), zero_point=-128)
    inner = build.conv(trunk, 16, square(3, pad=1), zero_point=-128)
    inner = build.conv(inner, 16, square(3, pad=1))
    total = build.add(trunk, inner)
    return build.conv(total, 8, square(1))


def downsample(build: Builder) -> str:
    """A residual block whose way around is a 1x1 convolution of stride 2, a pool, a classifier."""
    inner = build.conv(build.input, 24, square(3, 2, 1), zero_point=-128)
    inner = build.conv(inner, 24, square(3, pad=1))
    around = build.conv(build.input, 24, square(1, 2))
    pooled = build.global_average_pool(build.add(around, inner))
    return build.linear(build.flatten(pooled), 10)


def lenet(build: Builder) -> str:
    """conv, pool, conv, pool, three linears, with fused activations."""
    hidden = build.conv(build.input, 6, square(5, pad=2), zero_point=-128)
    hidden = build.max_pool(hidden, square(2, 2))
    hidden = build.conv(hidden, 16, square(5), zero_point=-128)
    hidden = build.max_pool(hidden, square(2, 2))
    hidden = build.linear(build.flatten(hidden), 120)
    return build.linear(build.linear(hidden, 84), 10)


def mobile(build: Builder) -> str:
    """An inverted residual: expand, depthwise, project, sum with its input."""
    inner = build.conv(build.input, 48, square(1), zero_point=-128)
    inner = build.conv(inner, 48, square(3, pad=1), groups=48, zero_point=-128)
    return build.add(build.input, build.conv(inner, 8, square(1)))


def pool_between(build: Builder) -> str:
    """conv, padded max pool of stride 2, conv: a ResNet's stem."""
    hidden = build.conv(build.input, 16, square(7, 2, 3), zero_point=-128)
    return build.conv(build.max_pool(hidden, square(3, 2, 1)), 8, square(1))


def clamp_between(build: Builder) -> str:
    """conv, clamp, conv."""
    hidden = build.clamp(build.conv(build.input, 8, square(3, pad=1)), -70, 55)
    return build.conv(hidden, 8, square(3, pad=1))


CASES: tuple[Case, ...] = (
    Case("conv-1x1", (16, 9, 11), lambda b: b.conv(b.input, 24, square(1))),
    Case("conv-1x1-stride", (16, 9, 11), lambda b: b.conv(b.input, 24, square(1, 2))),
    Case("conv-3x3-valid", (8, 9, 11), lambda b: b.conv(b.input, 12, square(3))),
    Case("conv-3x3-same", (8, 9, 11), lambda b: b.conv(b.input, 12, square(3, pad=1))),
    Case("conv-3x3-stride", (8, 16, 16), lambda b: b.conv(b.input, 12, square(3, 2, 1))),
    Case("conv-5x5", (5, 12, 10), lambda b: b.conv(b.input, 7, square(5, pad=2))),
    Case("conv-7x7-stem", (3, 30, 30), lambda b: b.conv(b.input, 16, square(7, 2, 3))),
    Case(
        "conv-pads-asymmetric",
        (6, 10, 9),
        lambda b: b.conv(b.input, 8, Window((3, 3), (2, 2), (0, 1, 2, 0))),
    ),
    Case(
        "conv-oblong",
        (6, 10, 9),
        lambda b: b.conv(b.input, 8, Window((1, 5), (1, 2), (0, 2, 0, 2))),
    ),
    Case("conv-dilated", (6, 14, 14), lambda b: b.conv(b.input, 8, square(3, 1, 2, 2))),
    Case("conv-depthwise", (24, 11, 9), lambda b: b.conv(b.input, 24, square(3, pad=1), 24)),
    Case(
        "conv-depthwise-stride",
        (24, 12, 12),
        lambda b: b.conv(b.input, 24, square(5, 2, 2), 24),
    ),
    Case(
        "conv-depthwise-multiplier",
        (6, 9, 9),
        lambda b: b.conv(b.input, 12, square(3, pad=1), 6),
    ),
    Case("conv-grouped", (16, 9, 9), lambda b: b.conv(b.input, 24, square(3, pad=1), 4)),
    Case(
        "conv-saturated",
        (8, 12, 12),
        lambda b: b.conv(b.input, 16, square(3, pad=1), saturation=8),
    ),
    Case("conv-one-channel", (1, 8, 8), lambda b: b.conv(b.input, 1, square(3, pad=1))),
    Case("linear", (64,), lambda b: b.linear(b.input, 40), 64),
    Case("linear-saturated", (300,), lambda b: b.linear(b.input, 7, saturation=8), 64),
    Case("linear-one-feature", (1,), lambda b: b.linear(b.input, 1), 256),
    Case("add-itself", (8, 16, 16), lambda b: b.add(b.input, b.input)),
    Case(
        "add-one-scale",
        (8, 12, 12),
        lambda b: b.add(b.input, b.clamp(b.input, -90, 100), b.of(b.input).quantization),
    ),
    Case("max-pool", (8, 12, 12), lambda b: b.max_pool(b.input, square(2, 2))),
    Case("max-pool-padded", (8, 13, 12), lambda b: b.max_pool(b.input, square(3, 2, 1))),
    Case("max-pool-overlapping", (8, 9, 9), lambda b: b.max_pool(b.input, square(3))),
    Case("global-average-pool", (32, 7, 7), lambda b: b.global_average_pool(b.input)),
    Case("global-average-pool-oblong", (32, 4, 6), lambda b: b.global_average_pool(b.input)),
    Case("flatten", (5, 4, 3), lambda b: b.flatten(b.input)),
    Case("flatten-linear", (5, 4, 3), lambda b: b.linear(b.flatten(b.input), 11), 32),
    Case("clamp", (4, 8, 8), lambda b: b.clamp(b.input, -60, 77)),
    Case("clamp-between", (4, 8, 8), clamp_between),
    Case("pool-between", (3, 32, 32), pool_between, 2),
    Case("residual", (16, 10, 10), residual),
    Case("residual-downsample", (12, 14, 14), downsample),
    Case("lenet", (1, 28, 28), lenet),
    Case("mobile", (8, 10, 10), mobile),
)
