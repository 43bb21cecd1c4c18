"""Random networks of one operator family each: shape, attributes, scales, zero points drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from deploykit.quantize.agreement import Agreement, Average, Pairs, Question, Table, WithConstant
from deploykit.quantize.scales import FIXED
from deploykit.quantize.settling import NUDGE, TRIES
from deploykit.reference.integer import ReferenceRunner
from deploykit.spec.arrays import Int8Array
from deploykit.spec.functions import WITH_PARAMETER
from deploykit.spec.operators import (
    Add,
    Function,
    GlobalAveragePool,
    Lookup,
    Mul,
    Operator,
    Sub,
    Window,
    operator_inputs,
)
from deploykit.spec.quantized import Quantization, QuantizedNetwork
from tests.suite.building import Builder
from tests.suite.runners import LiteRtRunner, OrtRunner

SAMPLES = 3
AGREEMENT = Agreement(ReferenceRunner(), (OrtRunner(), LiteRtRunner()))


class Drawn(Builder):
    """A builder whose scales and zero points are drawn one by one."""

    def __init__(self, data: st.DataObject, shape: tuple[int, ...]) -> None:
        self.data = data
        super().__init__(np.random.default_rng(self.whole(0, 2**32 - 1)), shape)

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.data.draw(st.integers(low, high)))

    def quantization(self, scale: float, zero_point: int | None = None) -> Quantization:
        """A scale within a factor of 3 of the one given."""
        factor = self.data.draw(st.floats(0.375, 3.0, width=32))
        drawn = self.whole(-128, 127) if zero_point is None else zero_point
        return Quantization(float(np.float32(scale * factor)), drawn)


Draw = Callable[[st.DataObject], QuantizedNetwork]


def image(data: st.DataObject) -> Drawn:
    """A network that begins with up to 9 channels of up to 9 x 9 pixels."""
    size = [data.draw(st.integers(1, 9), name) for name in ("channels", "height", "width")]
    return Drawn(data, (1, *size))


def window(build: Drawn, shape: tuple[int, ...], most_dilated: int = 2) -> Window:
    """Any window that fits, its padding narrower than itself."""
    kernel, strides, dilations, begins, ends = [], [], [], [], []
    for length in shape[2:]:
        k, d = build.whole(1, 4), build.whole(1, most_dilated)
        reach = (k - 1) * d + 1
        begin, end = build.whole(0, reach - 1), build.whole(0, reach - 1)
        assume(length + begin + end >= reach)
        kernel.append(k)
        dilations.append(d)
        strides.append(build.whole(1, 3))
        begins.append(begin)
        ends.append(end)
    return Window(
        (kernel[0], kernel[1]), (strides[0], strides[1]),
        (begins[0], begins[1], ends[0], ends[1]), (dilations[0], dilations[1]),
    )  # fmt: skip


def conv(data: st.DataObject) -> QuantizedNetwork:
    """A convolution of one group, or of several."""
    build = image(data)
    shape = build.of(build.input).shape
    groups = data.draw(st.sampled_from([g for g in (1, 2, 3) if shape[1] % g == 0]))
    outputs = groups * build.whole(1, 5)
    return build.network(build.conv(build.input, outputs, window(build, shape), groups))


def depthwise(data: st.DataObject) -> QuantizedNetwork:
    """A depthwise convolution of one or two outputs per channel."""
    build = image(data)
    shape = build.of(build.input).shape
    outputs = shape[1] * build.whole(1, 2)
    return build.network(build.conv(build.input, outputs, window(build, shape), shape[1]))


def linear(data: st.DataObject) -> QuantizedNetwork:
    """A linear layer, or one behind a flattened image."""
    if data.draw(st.booleans(), "image"):
        build = image(data)
        source = build.flatten(build.input)
    else:
        build = Drawn(data, (1, data.draw(st.integers(1, 70), "features")))
        source = build.input
    return build.network(build.linear(source, build.whole(1, 12)))


def binary(kind: str) -> Draw:
    """Of two tensors, one of which may be one pixel per channel."""

    def draw(data: st.DataObject) -> QuantizedNetwork:
        build = image(data)
        channels = build.of(build.input).shape[1]
        other = build.conv(build.input, channels, Window((1, 1)))
        if build.whole(0, 1):
            other = build.max_pool(other, Window(build.of(other).shape[2:]))  # type: ignore[arg-type]
        sides = (build.input, other) if kind == "sub" or build.whole(0, 1) else (other, build.input)
        return settled(build.network(getattr(build, kind)(*sides)))

    return draw


def with_constant(data: st.DataObject) -> QuantizedNetwork:
    """A sum or product with a number per channel, or with one."""
    build = image(data)
    channels = build.of(build.input).shape[1]
    values = build.rng.integers(-127, 128, (1, channels if build.whole(0, 1) else 1, 1, 1))
    held = values.astype(np.int8)
    if build.whole(0, 1):
        return settled(build.network(build.mul_constant(build.input, held)))
    into = build.quantization(build.of(build.input).quantization.scale * 2)
    return settled(build.network(build.add_constant(build.input, held, into)))


def lookup(data: st.DataObject) -> QuantizedNetwork:
    """A tabulated function."""
    build = image(data)
    function = data.draw(st.sampled_from(Function))
    parameter = 0.0
    if function in WITH_PARAMETER:
        parameter = data.draw(st.floats(-3.0, 3.0, width=32).map(lambda number: round(number, 3)))
    return settled(build.network(build.lookup(build.input, function, parameter)))


def max_pool(data: st.DataObject) -> QuantizedNetwork:
    """A max pool."""
    build = image(data)
    shape = build.of(build.input).shape
    return build.network(build.max_pool(build.input, window(build, shape, most_dilated=1)))


def average(data: st.DataObject) -> QuantizedNetwork:
    """A global average pool."""
    build = image(data)
    return settled(build.network(build.global_average_pool(build.input)))


def joined(data: st.DataObject) -> QuantizedNetwork:
    """A concatenation, maximum or minimum of a tensor and what moves made of it."""
    build = image(data)
    shape = build.of(build.input).shape
    other = build.gather(build.input, *(build.whole(0, shape[1] - 1) for _ in range(shape[1])))
    match data.draw(st.sampled_from(["concat", "maximum", "minimum"])):
        case "concat":
            parts = [build.input, other, build.input][: build.whole(2, 3)]
            return build.network(build.concat(*parts, axis=build.whole(1, 3)))
        case "maximum":
            return build.network(build.maximum(build.input, other))
        case _:
            return build.network(build.minimum(other, build.input))


def moves(data: st.DataObject) -> QuantizedNetwork:
    """Up to three moves, one behind another."""
    build = image(data)
    name = build.input
    for _ in range(build.whole(1, 3)):
        name = MOVES[data.draw(st.sampled_from(sorted(MOVES)))](build, name)
    return build.network(name)


def _slice(build: Drawn, name: str) -> str:
    axis = build.whole(1, 3)
    length = build.of(name).shape[axis]
    start = build.whole(0, length - 1)
    stop, step = build.whole(start + 1, length), build.whole(1, 3)
    # Lowering leaves no Slice that takes all.
    assume((start, stop, step) != (0, length, 1))
    return build.slice(name, axis, start, stop, step)


def _gather(build: Drawn, name: str) -> str:
    axis = build.whole(1, 3)
    last = build.of(name).shape[axis] - 1
    taken = [build.whole(0, last) for _ in range(build.whole(1, last + 3))]
    return build.gather(name, *taken, axis=axis)


def _clamp(build: Drawn, name: str) -> str:
    low = build.whole(-128, 127)
    return build.clamp(name, low, build.whole(low, 127))


def _space_to_depth(build: Drawn, name: str) -> str:
    block = build.whole(1, 3)
    _, _, height, width = build.of(name).shape
    assume(height % block == 0 and width % block == 0)
    return build.space_to_depth(name, block)


def _depth_to_space(build: Drawn, name: str) -> str:
    block = build.whole(1, 3)
    assume(build.of(name).shape[1] % block**2 == 0)
    return build.depth_to_space(name, block)


def _pad(build: Drawn, name: str) -> str:
    top, left, bottom, right = (build.whole(0, 3) for _ in range(4))
    assume(any((top, left, bottom, right)))
    return build.pad(name, (top, left, bottom, right), build.whole(-128, 127))


def _reshape(build: Drawn, name: str) -> str:
    """Channels and rows, rows and columns, or all of them anew, into an image again."""
    _, channels, height, width = build.of(name).shape
    shapes = [
        (channels * height, 1, width),
        (channels, 1, height * width),
        (width, height, channels),
    ]
    return build.reshape(name, *shapes[build.whole(0, 2)])


MOVES: Mapping[str, Callable[[Drawn, str], str]] = {
    "clamp": _clamp,
    "depth-to-space": _depth_to_space,
    "gather": _gather,
    "leaky-relu": lambda build, name: build.leaky_relu(name, build.whole(1, 600)),
    "pad": _pad,
    "repeat": lambda build, name: build.repeat(name, build.whole(1, 3), build.whole(1, 3)),
    "reshape": _reshape,
    "slice": _slice,
    "space-to-depth": _space_to_depth,
}

FAMILIES: Mapping[str, Draw] = {
    "add": binary("add"),
    "average": average,
    "constant": with_constant,
    "conv": conv,
    "depthwise": depthwise,
    "joined": joined,
    "linear": linear,
    "lookup": lookup,
    "max-pool": max_pool,
    "moves": moves,
    "mul": binary("mul"),
    "sub": binary("sub"),
}


def inputs(data: st.DataObject, network: QuantizedNetwork) -> Mapping[str, Int8Array]:
    """int8 [samples, ...] for the port `input`."""
    (port,) = network.inputs
    shape = network.tensors[port.tensor].shape[1:]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "values"))
    return {port.name: rng.integers(-128, 128, (SAMPLES, *shape)).astype(np.int8)}


def settled(network: QuantizedNetwork) -> QuantizedNetwork:
    """The network with the scales of its last operator grown as planning grows them."""
    operator = network.operators[-1]
    asked = _question(operator, network)
    fixed = isinstance(operator, Lookup) and operator.function in FIXED
    moved = operator_inputs(operator)[0] if fixed else operator.output
    for _ in range(TRIES):
        names = (*operator_inputs(operator), operator.output)
        if AGREEMENT.holds(asked, tuple(network.operand(name).quantization for name in names)):
            return network
        tensor = network.tensors[moved]
        grown = float(np.float32(tensor.quantization.scale * NUDGE))
        held = replace(tensor, quantization=replace(tensor.quantization, scale=grown))
        network = replace(network, tensors={**network.tensors, moved: held})
    raise AssertionError(f"no scale near {tensor.quantization} makes the runtimes agree")


def _question(operator: Operator, network: QuantizedNetwork) -> Question:
    full = network.tensors[operator.output].shape
    match operator:
        case Lookup():
            return Table(operator.function, operator.parameter)
        case GlobalAveragePool():
            height, width = network.tensors[operator.input].shape[2:]
            return Average((height, width))
        case Add() | Mul() | Sub():
            if operator.right in network.constants:
                values = network.constants[operator.right].values
                return WithConstant(type(operator), tuple(int(v) for v in np.unique(values)))
            sides = (network.tensors[operator.left].shape, network.tensors[operator.right].shape)
            return Pairs(type(operator), (sides[0] == full, sides[1] == full))
        case _:
            raise AssertionError(f"{operator.name} needs no agreement")
