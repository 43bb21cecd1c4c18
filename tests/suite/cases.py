"""One list of operator cases; every runtime and every writer runs all of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploykit.spec.arrays import AnyArray
from deploykit.spec.carriers import ANY_RUNTIME, OLDEST_ORT, CarrierOptions, TfliteLowbit
from deploykit.spec.operators import Function, Maximum, Minimum, Window
from deploykit.spec.quantized import IoType, Quantization, QuantizedNetwork
from tests.suite.building import Builder


@dataclass(frozen=True)
class Case:
    """A named network of one or a few operators. shape: of its one input, without the batch.

    bits: of its weights.
    """

    name: str
    shape: tuple[int, ...]
    build: Callable[[Builder], str]
    samples: int = 4
    bits: int = 8
    carriers: CarrierOptions = ANY_RUNTIME

    def network(self, io: IoType = IoType.FLOAT, batch: int = 1) -> QuantizedNetwork:
        """The network; the same at every call."""
        builder = Builder(self._rng(), (batch, *self.shape), self.bits, self.carriers)
        output = self.build(builder)
        return replace(builder.network(output), io=io)

    def inputs(self) -> Mapping[str, AnyArray]:
        """int8 [samples, ...] for the port `input`, both ends of the range included; and ids."""
        rng = self._rng()
        drawn = rng.integers(-128, 128, (self.samples, *self.shape)).astype(np.int8)
        drawn.reshape(-1)[:2] = (-128, 127)
        return {"input": drawn, **ids_of(self.network(), self.samples, rng)}

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.name.encode()))


def ids_of(
    network: QuantizedNetwork, samples: int, rng: np.random.Generator
) -> Mapping[str, AnyArray]:
    """Whole numbers [samples, ...] for the ports that take them."""
    return {
        name: rng.integers(0, held.limit, (samples, *held.shape[1:])).astype(held.dtype)
        for name, held in network.indices.items()
        if name in {port.name for port in network.inputs}
    }


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


def gate(build: Builder) -> str:
    """Squeeze and excite: pool, two 1x1 convs, sigmoid, product with the way around."""
    trunk = build.conv(build.input, 16, square(3, pad=1), zero_point=-128)
    pooled = build.global_average_pool(trunk)
    squeezed = build.conv(pooled, 4, square(1), zero_point=-128)
    opened = build.lookup(build.conv(squeezed, 16, square(1)), Function.SIGMOID)
    return build.conv(build.mul(trunk, opened), 8, square(1))


def hard_swish(build: Builder) -> str:
    """conv, x * clip(x + 3, 0, 6), conv."""
    trunk = build.conv(build.input, 16, square(3, pad=1))
    shifted = build.add_constant(
        trunk, np.full((1, 1, 1, 1), 100, np.int8), Quantization(float(np.float32(6 / 255)), -128)
    )
    return build.conv(build.mul(trunk, shifted), 8, square(1))


def silu(build: Builder) -> str:
    """conv, x * sigmoid(x), conv."""
    trunk = build.conv(build.input, 16, square(3, pad=1))
    opened = build.lookup(trunk, Function.SIGMOID)
    return build.conv(build.mul(trunk, opened), 8, square(1))


def dense(build: Builder) -> str:
    """conv behind the concatenation of a conv and what it read."""
    trunk = build.conv(build.input, 16, square(3, pad=1), zero_point=-128)
    joined = build.concat(trunk, build.max_pool(trunk, square(3, pad=1)))
    return build.conv(joined, 8, square(1))


def shuffle(build: Builder) -> str:
    """One half through a conv, then both interleaved."""
    trunk = build.conv(build.input, 16, square(1), zero_point=-128)
    left, right = build.slice(trunk, 1, 0, 8), build.slice(trunk, 1, 8, 16)
    joined = build.concat(left, build.clamp(right, -100, 100))
    return build.gather(joined, *(half * 8 + i for i in range(8) for half in range(2)))


def up(build: Builder) -> str:
    """Depth to space, then beside the repeated pixels of another path."""
    trunk = build.conv(build.input, 16, square(1), zero_point=-128)
    finer = build.depth_to_space(trunk, 2)
    return build.conv(build.concat(finer, build.repeat(trunk, 2, 2)), 8, square(1))


def stem(build: Builder) -> str:
    """A first convolution of stride 2 on pixels that became channels."""
    deep = build.space_to_depth(build.input, 2)
    return build.conv(deep, 16, Window((2, 2), pads=(1, 1, 0, 0)), zero_point=-128)


def difference(build: Builder) -> str:
    """conv less its own mean, beside the larger of two paths, and a conv behind each."""
    trunk = build.conv(build.input, 16, square(3, pad=1))
    centred = build.sub(trunk, build.global_average_pool(trunk))
    largest = build.maximum(trunk, build.max_pool(trunk, square(3, 1, 1)))
    sides = (build.conv(one, 8, square(1)) for one in (centred, largest))
    return build.sub(*sides)


def signal(build: Builder) -> str:
    """A 1-D network: convolutions and a pool over one row, a leaky relu, and back."""
    row = build.reshape(build.input, 6, 1, 20)
    trunk = build.leaky_relu(build.conv(row, 8, Window((1, 3), pads=(0, 1, 0, 1))), 26)
    pooled = build.max_pool(trunk, Window((1, 2), (1, 2)))
    return build.reshape(build.conv(pooled, 5, Window((1, 3))), 5, 8)


def many(build: Builder) -> str:
    """Thirteen parts, more than a runtime joins at a time."""
    trunk = build.conv(build.input, 16, square(1), zero_point=-128)
    parts = [build.slice(trunk, 1, i, i + 4) for i in range(13)]
    return build.conv(build.concat(*parts), 8, square(1))


def tokens(build: Builder) -> str:
    """An image as a sequence of its pixels, as rows, through a linear, and back as a sequence."""
    trunk = build.conv(build.input, 8, square(2, 2), zero_point=-128)
    sequence = build.rearrange(
        trunk, "v = Reshape (x, flat) y = Transpose <perm=[0,2,1]> (v)",
        flat=np.array([1, 8, 16]),
    )  # fmt: skip
    rows = build.rearrange(sequence, "y = Reshape (x, rows)", rows=np.array([16, 8]))
    return build.rearrange(
        build.linear(rows, 12), "y = Reshape (x, whole)",
        whole=np.array([1, 16, 12]),
    )  # fmt: skip


def windows(build: Builder) -> str:
    """Windows of pixels as rows, as a transformer over windows takes them: six axes, then five."""
    trunk = build.conv(build.input, 8, square(2, 2), zero_point=-128)
    rows = build.rearrange(
        trunk, """v = Reshape (x, apart) t = Transpose <perm=[0,2,4,3,5,1]> (v)
            y = Reshape (t, rows)""",
        apart=np.array([1, 8, 2, 2, 2, 2]), rows=np.array([16, 8]),
    )  # fmt: skip
    return build.rearrange(
        build.linear(rows, 12), """v = Reshape (x, heads) t = Transpose <perm=[2,0,3,1,4]> (v)
            y = Reshape (t, whole)""",
        heads=np.array([4, 4, 3, 2, 2]), whole=np.array([3, 4, 16]),
    )  # fmt: skip


def attention(build: Builder) -> str:
    """Two heads over queries, keys and values that come out of one linear."""
    rows = build.rearrange(build.input, "y = Squeeze (x, axis)", axis=np.array([0]))
    return build.island(
        build.linear(rows, 48),
        text="""
            v = Reshape (x, split)
            t = Transpose <perm=[2,0,3,1,4]> (v)
            q, k, w = Split <axis=0, num_outputs=3> (t)
            qs = Squeeze (q, zero)
            ks = Squeeze (k, zero)
            ws = Squeeze (w, zero)
            qm = Mul (qs, factor)
            kt = Transpose <perm=[0,1,3,2]> (ks)
            s = MatMul (qm, kt)
            p = Softmax <axis=-1> (s)
            o = MatMul (p, ws)
            b = Transpose <perm=[0,2,1,3]> (o)
            y = Reshape (b, rows)
        """,
        scale=0.02, split=np.array([1, 10, 3, 2, 8]), zero=np.array([0]),
        factor=np.array(0.35, np.float32), rows=np.array([10, 16]),
    )  # fmt: skip


WIDE: tuple[Case, ...] = (
    Case(
        "rearrange-transpose",
        (4, 5, 6),
        lambda b: b.rearrange(b.input, "y = Transpose <perm=[0,3,1,2]> (x)"),
    ),
    Case(
        "rearrange-reshape",
        (4, 5, 6),
        lambda b: b.rearrange(b.input, "y = Reshape (x, s)", s=np.array([1, 2, 10, 6])),
    ),
    Case(
        "rearrange-drop-axes",
        (7, 1, 1),
        lambda b: b.rearrange(b.input, "y = Squeeze (x, axes)", axes=np.array([2, 3])),
    ),
    Case("tokens", (3, 8, 8), tokens),
    Case("windows", (3, 8, 8), windows),
    Case(
        "island-softmax",
        (4, 5, 6),
        lambda b: b.island(b.input, text="y = Softmax <axis=1> (x)", scale=1 / 256),
    ),
    Case(
        "island-layer-norm",
        (9, 16),
        lambda b: b.island(
            b.input,
            text="y = LayerNormalization <axis=-1, epsilon=1e-5> (x, g, o)",
            scale=0.03,
            g=np.linspace(0.5, 2, 16, dtype=np.float32),
            o=np.linspace(-1, 1, 16, dtype=np.float32),
        ),
    ),
    Case(
        "island-of-two",
        (4, 6, 6),
        lambda b: b.island(
            b.input,
            b.conv(b.input, 4, square(1)),
            text="d = Div (x, two) y = MatMul (d, x1)",
            scale=0.5,
            two=np.array(2, np.float32),
        ),
    ),
    Case("attention", (10, 16), attention),
    Case(
        "island-choice",
        (4, 6, 6),
        lambda b: b.island(
            b.conv(b.input, 4, square(1)),
            b.input,
            text="""g = Greater (x, x1) l = LessOrEqual (x, half) n = Not (l) e = Equal (x, x1)
                a = Or (g, e) o = And (a, n) y = Where (o, x1, zero)""",
            scale=0.02,
            half=np.array([0.2, 0.1, 0.0, -0.1], np.float32).reshape(1, 4, 1, 1),
            zero=np.array(0, np.float32),
        ),
    ),
    Case(
        "island-mask",
        (4, 6, 6),
        lambda b: b.island(
            b.input,
            text="m = Less (x, k) h = GreaterOrEqual (x, l) n = And (m, h) y = Cast <to=1> (n)",
            scale=1 / 255,
            k=np.array(0.3, np.float32),
            l=np.linspace(-0.5, 0.1, 36, dtype=np.float32).reshape(6, 6),
        ),
    ),
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
    Case(
        "add-constant-channels",
        (8, 6, 6),
        lambda b: b.add_constant(
            b.input, np.arange(-40, 40, 10, dtype=np.int8).reshape(1, 8, 1, 1), b.quantization(0.03)
        ),
    ),
    Case("mul-itself", (8, 16, 16), lambda b: b.mul(b.input, b.input)),
    Case("mul-channels", (8, 9, 7), lambda b: b.mul(b.input, b.global_average_pool(b.input))),
    Case(
        "mul-constant",
        (8, 9, 7),
        lambda b: b.mul_constant(
            b.input, np.arange(-80, 80, 20, dtype=np.int8).reshape(1, 8, 1, 1)
        ),
    ),
    Case("sub-itself", (8, 16, 16), lambda b: b.sub(b.input, b.clamp(b.input, -90, 100))),
    Case("sub-means", (8, 9, 7), lambda b: b.sub(b.input, b.global_average_pool(b.input))),
    Case("sub-from-means", (8, 9, 7), lambda b: b.sub(b.global_average_pool(b.input), b.input)),
    Case("maximum", (4, 8, 8), lambda b: b.maximum(b.input, b.gather(b.input, 3, 0, 1, 2))),
    Case("minimum", (4, 8, 8), lambda b: b.minimum(b.input, b.gather(b.input, 3, 0, 1, 2))),
    Case(
        "maximum-channels",
        (4, 8, 8),
        lambda b: b.compare(
            Maximum, b.input, np.array([-100, -3, 40, 127], np.int8).reshape(1, 4, 1, 1)
        ),
    ),
    Case(
        "minimum-pixels",
        (2, 3, 4),
        lambda b: b.compare(
            Minimum, b.input, np.arange(-60, 60, 5, dtype=np.int8).reshape(1, 2, 3, 4)
        ),
    ),
    Case(
        "maximum-vector",
        (12,),
        lambda b: b.compare(
            Maximum, b.linear(b.input, 6), np.arange(-60, 60, 20, dtype=np.int8).reshape(1, 6)
        ),
    ),
    Case("minimum-features", (40,), lambda b: b.minimum(b.input, b.clamp(b.input, -60, 77))),
    Case("difference", (8, 9, 9), difference),
    Case("sigmoid", (4, 8, 8), lambda b: b.lookup(b.input, Function.SIGMOID)),
    Case("tanh", (4, 8, 8), lambda b: b.lookup(b.input, Function.TANH)),
    Case("elu", (4, 8, 8), lambda b: b.lookup(b.input, Function.ELU)),
    Case("gelu", (4, 8, 8), lambda b: b.lookup(b.input, Function.GELU)),
    Case("gelu-tanh", (4, 8, 8), lambda b: b.lookup(b.input, Function.GELU_TANH)),
    Case("exp", (4, 8, 8), lambda b: b.lookup(b.input, Function.EXP)),
    Case("erf", (4, 8, 8), lambda b: b.lookup(b.input, Function.ERF)),
    Case("mish", (4, 8, 8), lambda b: b.lookup(b.input, Function.MISH)),
    Case("softplus", (40,), lambda b: b.lookup(b.input, Function.SOFTPLUS)),
    Case("softsign", (4, 8, 8), lambda b: b.lookup(b.input, Function.SOFTSIGN)),
    Case("power", (4, 8, 8), lambda b: b.lookup(b.input, Function.POWER, 1.7)),
    Case("power-five", (40,), lambda b: b.lookup(b.input, Function.POWER, 5.0)),
    Case("thresholded", (4, 8, 8), lambda b: b.lookup(b.input, Function.THRESHOLDED, 0.3)),
    Case("concat", (4, 8, 8), lambda b: b.concat(b.input, b.clamp(b.input, -60, 77))),
    Case("concat-rows", (4, 8, 8), lambda b: b.concat(b.input, b.clamp(b.input, -60, 77), axis=2)),
    Case("concat-features", (40,), lambda b: b.concat(b.input, b.clamp(b.input, -60, 77))),
    Case("slice-channels", (9, 6, 5), lambda b: b.slice(b.input, 1, 2, 7)),
    Case("slice-rows-step", (4, 9, 5), lambda b: b.slice(b.input, 2, 1, 8, 3)),
    Case("gather", (6, 5, 5), lambda b: b.gather(b.input, 3, 0, 5, 5, 1)),
    Case("gather-rows", (3, 5, 4), lambda b: b.gather(b.input, 0, 0, 1, 4, 3, axis=2)),
    Case("gather-columns", (3, 4, 5), lambda b: b.gather(b.input, 4, 3, 2, 1, 0, 0, axis=3)),
    Case("gather-rank-5", (2, 3, 4, 5), lambda b: b.gather(b.input, 3, 0, 0, 1, axis=3)),
    Case("gather-last-of-5", (2, 3, 2, 5), lambda b: b.gather(b.input, 4, 3, 2, 0, axis=4)),
    Case("gather-steps", (5, 4), lambda b: b.gather(b.input, 4, 2, 0, 0, axis=1)),
    Case("gather-features", (3, 6), lambda b: b.gather(b.input, 5, 0, 5, 2, axis=2)),
    Case(
        "gather-both",
        (8, 5, 6),
        lambda b: b.conv(
            b.gather(
                b.gather(b.conv(b.input, 8, square(1)), 1, 0, 0, 2, 4, axis=2), 5, 4, 4, 1, axis=3
            ),
            4,
            square(3, pad=1),
        ),
    ),
    Case("embedding", (10, 8), lambda b: b.add(b.input, b.embedding(20, 8, 10))),
    Case("embedding-vector", (8,), lambda b: b.linear(b.add(b.embedding(5, 8), b.input), 3)),
    Case("embedding-alone", (3, 8), lambda b: b.embedding(300, 6, 7)),
    Case("arg-max", (12,), lambda b: b.arg_max(b.linear(b.input, 5), 1), 64),
    Case("arg-max-int32", (12,), lambda b: b.arg_max(b.input, 1, "int32"), 64),
    Case("arg-max-pixels", (3, 5, 4), lambda b: b.arg_max(b.conv(b.input, 4, square(1)), 1)),
    Case("arg-max-kept", (6, 5, 4), lambda b: b.arg_max(b.input, 1, "int64", kept=True)),
    Case("arg-max-ties", (2, 9, 9), lambda b: b.arg_max(b.clamp(b.input, -3, 2), 1)),
    Case("arg-max-tokens", (6, 9), lambda b: b.arg_max(b.input, 2, "int32", kept=True)),
    Case("repeat", (4, 5, 6), lambda b: b.repeat(b.input, 2, 3)),
    Case("depth-to-space", (12, 4, 5), lambda b: b.depth_to_space(b.input, 2)),
    Case("space-to-depth", (3, 8, 10), lambda b: b.space_to_depth(b.input, 2)),
    Case("stem", (3, 16, 12), stem),
    Case("leaky-relu", (4, 8, 8), lambda b: b.leaky_relu(b.input, 26)),
    Case("leaky-relu-flat", (4, 8, 8), lambda b: b.leaky_relu(b.input, 3)),
    Case("leaky-relu-half", (4, 8, 8), lambda b: b.leaky_relu(b.input, 128)),
    Case("leaky-relu-steep", (4, 8, 8), lambda b: b.leaky_relu(b.input, 428)),
    Case("leaky-relu-features", (40,), lambda b: b.leaky_relu(b.input, 51)),
    Case("pad", (4, 5, 6), lambda b: b.pad(b.input, (1, 2, 0, 3))),
    Case("pad-leaky", (4, 5, 6), lambda b: b.leaky_relu(b.pad(b.input, (1, 1, 1, 1)), 26)),
    Case("pad-with-five", (4, 5, 6), lambda b: b.pad(b.input, (1, 0, 1, 0), 5)),
    Case("pad-conv", (4, 5, 6), lambda b: b.conv(b.pad(b.input, (1, 1, 1, 1), 5), 3, square(3))),
    Case("pad-pool", (4, 5, 6), lambda b: b.max_pool(b.pad(b.input, (1, 1, 1, 1)), square(3))),
    Case("reshape-split", (12, 4, 5), lambda b: b.reshape(b.input, 6, 8, 5)),
    Case("reshape-to-rows", (6, 4, 5), lambda b: b.reshape(b.input, 6, 20)),
    Case("reshape-one-pixel", (24, 1, 1), lambda b: b.reshape(b.input, 4, 6)),
    Case("reshape-to-image", (120,), lambda b: b.reshape(b.input, 6, 4, 5)),
    Case("reshape-to-column", (24,), lambda b: b.reshape(b.input, 24, 1, 1)),
    Case("reshape-signal", (6, 20), lambda b: b.reshape(b.input, 6, 1, 20)),
    Case("signal", (6, 20), signal),
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
    Case("gate", (8, 9, 9), gate),
    Case("hard-swish", (8, 9, 9), hard_swish),
    Case("silu", (8, 9, 9), silu),
    Case("dense", (8, 9, 9), dense),
    Case("many", (8, 9, 9), many),
    Case("shuffle", (8, 9, 9), shuffle),
    Case("up", (8, 6, 6), up),
    Case("mobile", (8, 10, 10), mobile),
)

NARROW_BASES: tuple[Case, ...] = (
    Case("conv-1x1-of-64", (64, 7, 9), lambda b: b.conv(b.input, 40, square(1))),
    Case("conv-1x1-of-46", (46, 7, 9), lambda b: b.conv(b.input, 48, square(1))),
    Case("conv-1x1-of-45", (45, 7, 9), lambda b: b.conv(b.input, 49, square(1))),
    Case("conv-1x1-strided", (64, 9, 11), lambda b: b.conv(b.input, 40, square(1, 2))),
    Case("conv-1x1-padded", (64, 5, 6), lambda b: b.conv(b.input, 40, square(1, pad=1))),
    Case("conv-3x3", (16, 9, 11), lambda b: b.conv(b.input, 24, square(3, pad=1))),
    Case("conv-dilated", (16, 14, 14), lambda b: b.conv(b.input, 24, square(3, 1, 2, 2))),
    Case("conv-depthwise", (48, 11, 9), lambda b: b.conv(b.input, 48, square(5, pad=2), 48)),
    Case("conv-grouped", (32, 9, 9), lambda b: b.conv(b.input, 48, square(3, pad=1), 4)),
    Case("conv-7x7-stem", (3, 30, 30), lambda b: b.conv(b.input, 16, square(7, 2, 3))),
    Case("linear", (128,), lambda b: b.linear(b.input, 40), 64),
    Case("linear-of-127", (127,), lambda b: b.linear(b.input, 41), 64),
    Case("linear-saturated", (300,), lambda b: b.linear(b.input, 7, saturation=8), 64),
    Case("lenet", (1, 28, 28), lenet),
    Case("residual", (3, 12, 10), residual),
    Case("mobile", (8, 10, 10), mobile),
    Case("gate", (8, 9, 9), gate),
)
"""Every kind of layer, and inputs that a carrier takes or not."""


def narrow(bits: int, options: CarrierOptions, called: str = "") -> tuple[Case, ...]:
    """The bases with weights of so many bits, in the carriers that the options leave.

    Where files are to be small, those alone whose kernels round as the reference does.
    """
    small = options.tflite is TfliteLowbit.SMALL
    bases = [case for case in NARROW_BASES if not small or case.name.startswith(AS_LINEAR)]
    return tuple(
        replace(case, name=f"{case.name}-{bits}-bit{called}", bits=bits, carriers=options)
        for case in bases
    )


AS_LINEAR = ("conv-1x1-of", "linear")
OLD = CarrierOptions(OLDEST_ORT)
SMALLEST = CarrierOptions(tflite=TfliteLowbit.SMALL)

NARROW: tuple[Case, ...] = (
    *(case for bits in (6, 4, 3, 2) for case in narrow(bits, ANY_RUNTIME)),
    *(case for bits in (4, 2) for case in narrow(bits, OLD, "-old-ort")),
    *narrow(2, SMALLEST, "-small"),
)
"""Weights of fewer than 8 bits."""

CASES = (*WIDE, *NARROW)
