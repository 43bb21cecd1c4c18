"""Integer networks for the TFLite tests: two fixed ones, and random ones for hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from deploykit.spec.arrays import Int8Array
from deploykit.spec.operators import (
    Add,
    Clamp,
    Conv,
    Flatten,
    GlobalAveragePool,
    IntegerWeight,
    Linear,
    MaxPool,
    Operator,
    Window,
)
from deploykit.spec.quantized import ActivationTensor, IoType, Port, Quantization, QuantizedNetwork

PADDED = Window((3, 3), pads=(1, 1, 1, 1))


@dataclass
class NetworkBuilder:
    """Appends operators with random integers; every method returns its output's name."""

    random: np.random.Generator
    tensors: dict[str, ActivationTensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)

    def tensor(self, shape: tuple[int, ...], like: str | None = None, name: str = "") -> str:
        scale = float(np.float32(self.random.uniform(0.01, 0.2)))
        quantization = Quantization(scale, int(self.random.integers(-128, 128)))
        if like is not None:
            quantization = self.tensors[like].quantization
        name = name or f"t{len(self.tensors)}"
        self.tensors[name] = ActivationTensor(name, shape, quantization)
        return name

    def image(self, channels: int, height: int, width: int, batch: int = 1) -> str:
        return self.tensor((batch, channels, height, width), name="image")

    def weight(self, *shape: int) -> IntegerWeight:
        values = self.random.integers(-127, 128, shape).astype(np.int8)
        scale = self.random.uniform(0.0005, 0.01, shape[0]).astype(np.float32)
        return IntegerWeight(f"w{len(self.operators)}", values, scale)

    def conv(self, source: str, outputs: int, window: Window = PADDED, groups: int = 1) -> str:
        batch, channels, height, width = self.tensors[source].shape
        result = self.tensor((batch, outputs, *_size(height, width, window)))
        weight = self.weight(outputs, channels // groups, *window.kernel)
        bias = self.random.integers(-3000, 3000, outputs).astype(np.int32)
        self.operators.append(Conv(result, source, result, weight, bias, window, groups))
        return result

    def linear(self, source: str, outputs: int) -> str:
        batch, inputs = self.tensors[source].shape
        result = self.tensor((batch, outputs))
        bias = self.random.integers(-3000, 3000, outputs).astype(np.int32)
        weight = self.weight(outputs, inputs)
        self.operators.append(Linear(result, source, result, weight, bias))
        return result

    def add(self, left: str, right: str) -> str:
        result = self.tensor(self.tensors[left].shape)
        self.operators.append(Add(result, left, right, result))
        return result

    def max_pool(self, source: str, window: Window) -> str:
        batch, channels, height, width = self.tensors[source].shape
        result = self.tensor((batch, channels, *_size(height, width, window)), source)
        self.operators.append(MaxPool(result, source, result, window))
        return result

    def global_average_pool(self, source: str) -> str:
        batch, channels, _, _ = self.tensors[source].shape
        result = self.tensor((batch, channels, 1, 1))
        self.operators.append(GlobalAveragePool(result, source, result))
        return result

    def flatten(self, source: str) -> str:
        batch, *rest = self.tensors[source].shape
        result = self.tensor((batch, int(np.prod(rest))), source)
        self.operators.append(Flatten(result, source, result))
        return result

    def clamp(self, source: str, low: int, high: int) -> str:
        result = self.tensor(self.tensors[source].shape, source)
        self.operators.append(Clamp(result, source, result, low, high))
        return result

    def network(self, *outputs: str, io: IoType = IoType.INT8) -> QuantizedNetwork:
        ports = tuple(
            Port("scores" if index == 0 else f"extra{index}", name)
            for index, name in enumerate(outputs)
        )
        inputs = (Port("input", "image"),)
        return QuantizedNetwork(self.tensors, tuple(self.operators), inputs, ports, io)


def plain_cnn(io: IoType = IoType.FLOAT) -> QuantizedNetwork:
    """Two convolutions, two pools, flatten, two linears: no operator between that costs time."""
    build = NetworkBuilder(np.random.default_rng(7))
    pool = Window((2, 2), (2, 2))
    first = build.max_pool(build.conv(build.image(3, 8, 12), 6), pool)
    second = build.max_pool(build.conv(first, 5), pool)
    hidden = build.linear(build.flatten(second), 9)
    return build.network(build.linear(hidden, 4), io=io)


def every_operator(io: IoType = IoType.INT8, batch: int = 1) -> QuantizedNetwork:
    """Each operator, each padding form, a grouped and a depthwise convolution, three outputs."""
    build = NetworkBuilder(np.random.default_rng(3))
    strided = Window((3, 3), (2, 2), (1, 1, 1, 1))
    stem = build.conv(build.image(4, 17, 16, batch), 8, strided)
    depthwise = build.conv(stem, 8, PADDED, groups=8)
    grouped = build.conv(depthwise, 8, PADDED, groups=2)
    total = build.add(stem, build.clamp(grouped, -30, 70))
    pooled = build.max_pool(total, strided)
    features = build.clamp(build.flatten(pooled), -100, 127)
    average = build.flatten(build.global_average_pool(total))
    return build.network(build.linear(features, 5), average, total, io=io)


@st.composite
def windows(draw: st.DrawFn, height: int, width: int, *, dilated: bool) -> Window:
    """Windows that fit an image; pads smaller than the window's reach, as the formats want them."""
    per_axis = []
    for length in (height, width):
        kernel = draw(st.integers(1, min(4, length)))
        dilation = draw(st.integers(1, 2)) if dilated else 1
        reach = (kernel - 1) * dilation
        front = draw(st.integers(0, reach if dilated else kernel // 2))
        back = draw(st.integers(0, reach if dilated else kernel // 2))
        if length + front + back < reach + 1:
            front = back = reach
        per_axis.append((kernel, draw(st.integers(1, 3)), front, back, dilation))
    (kh, sh, top, bottom, dh), (kw, sw, left, right, dw) = per_axis
    return Window((kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw))


@st.composite
def conv_networks(draw: st.DrawFn) -> QuantizedNetwork:
    """One convolution: dense, grouped or depthwise, any window."""
    build = NetworkBuilder(np.random.default_rng(draw(st.integers(0, 2**16))))
    height, width = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    groups, depth = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    outputs = groups * draw(st.integers(1, 4))
    image = build.image(groups * depth, height, width)
    window = draw(windows(height, width, dilated=True))
    return build.network(build.conv(image, outputs, window, groups))


@st.composite
def headed_networks(draw: st.DrawFn) -> QuantizedNetwork:
    """Convolution, pool, maybe clamps, flatten, linear; at times the flattened tensor is public."""
    build = NetworkBuilder(np.random.default_rng(draw(st.integers(0, 2**16))))
    image = build.image(draw(st.integers(1, 4)), draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    last = build.conv(image, draw(st.integers(1, 6)))
    _, _, height, width = build.tensors[last].shape
    last = build.max_pool(last, draw(windows(height, width, dilated=False)))
    if draw(st.booleans()):
        last = build.clamp(last, draw(st.integers(-128, 0)), draw(st.integers(1, 127)))
    flat = last = build.flatten(last)
    if draw(st.booleans()):
        last = build.clamp(last, draw(st.integers(-128, 0)), draw(st.integers(1, 127)))
    scores = build.linear(last, 3)
    return build.network(*((scores, flat) if draw(st.booleans()) else (scores,)))


def random_inputs(network: QuantizedNetwork, samples: int = 2) -> dict[str, Int8Array]:
    """int8 [samples, ...] by port name."""
    random = np.random.default_rng(11)
    return {
        port.name: random.integers(
            -128, 128, (samples, *network.tensors[port.tensor].shape[1:])
        ).astype(np.int8)
        for port in network.inputs
    }


def _size(height: int, width: int, window: Window) -> tuple[int, int]:
    top, left, bottom, right = window.pads
    reach = [(window.kernel[axis] - 1) * window.dilations[axis] + 1 for axis in (0, 1)]
    return (
        (height + top + bottom - reach[0]) // window.strides[0] + 1,
        (width + left + right - reach[1]) // window.strides[1] + 1,
    )
