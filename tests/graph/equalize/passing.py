"""Random networks of operators that factors pass, and of some that stop them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.graph.text import graph


class Passing:
    """A network under construction: lines of ONNX text, constants, and the last tensor."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.lines: list[str] = []
        self.constants: dict[str, AnyArray] = {}
        self.last, self.channels, self.size = "input", 2, 6

    def weight(self, *shape: int) -> str:
        """Name of new weights, their first axis spread over 2^-2 to 2^2."""
        spread = np.exp2(self.rng.uniform(-2, 2, (shape[0], *(1,) * (len(shape) - 1))))
        return self.constant((self.rng.normal(size=shape) * spread).astype(np.float32))

    def constant(self, array: AnyArray) -> str:
        """Its name."""
        name = f"k{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, call: str) -> str:
        """Its output, which is the last tensor then."""
        self.last = f"t{len(self.lines)}"
        self.lines.append(f"{self.last} = {call}")
        return self.last

    def conv(self, outputs: int, kernel: int = 1, groups: int = 1) -> str:
        """Of stride 1, padded to the same size."""
        weight = self.weight(outputs, self.channels // groups, kernel, kernel)
        bias, pad = self.weight(outputs), kernel // 2
        self.channels = outputs
        return self.add(
            f"Conv<group={groups}, pads=[{pad},{pad},{pad},{pad}]>({self.last}, {weight}, {bias})"
        )


def _depthwise(net: Passing) -> None:
    net.conv(net.channels, 3, net.channels)


def _grouped(net: Passing) -> None:
    net.conv(6 if net.channels % 2 == 0 else net.channels, 3, 2 if net.channels % 2 == 0 else 1)


def _transposed(net: Passing) -> None:
    groups = 2 if net.channels % 2 == 0 else 1
    weight, bias = net.weight(net.channels, 2, 3, 3), net.weight(2 * groups)
    net.add(f"ConvTranspose<group={groups}, pads=[1,1,1,1]>({net.last}, {weight}, {bias})")
    net.channels = 2 * groups


def _residual(net: Passing) -> None:
    before, channels = net.last, net.channels
    net.conv(4)
    net.add(f"Relu({net.last})")
    inner = net.conv(channels)
    kind = net.rng.choice(["Add", "Sub", "Max", "Min", "Sum"])
    net.add(f"{kind}({before}, {inner})")


def _concat(net: Passing) -> None:
    before, channels = net.last, net.channels
    inner = net.conv(2)
    net.add(f"Concat<axis=1>({before}, {inner}, {before})")
    net.channels = 2 * channels + 2


def _gather(net: Passing) -> None:
    chosen = net.constant(net.rng.integers(0, net.channels, 4))
    net.add(f"Gather<axis=1>({net.last}, {chosen})")
    net.channels = 4


def _split(net: Passing) -> None:
    if net.channels < 3:
        return
    sizes = net.constant(np.array([1, 1, net.channels - 2]))
    names = [f"s{len(net.lines)}_{index}" for index in range(3)]
    net.lines.append(f"{', '.join(names)} = Split<axis=1>({net.last}, {sizes})")
    net.add(f"Concat<axis=1>({names[2]}, {names[0]})")
    net.channels -= 1


def _pixels(net: Passing) -> None:
    """Each pixel's channels side by side, and back in the other order."""
    mode = net.rng.choice(["DCR", "CRD"])
    net.add(f"SpaceToDepth<blocksize=2>({net.last})")
    net.channels *= 4
    net.conv(8)
    net.add(f'DepthToSpace<blocksize=2, mode="{mode}">({net.last})')
    net.channels = 2


def _prelu(net: Passing) -> None:
    slope = net.rng.uniform(0.1, 0.5, (net.channels, 1, 1)).astype(np.float32)
    net.add(f"PRelu({net.last}, {net.constant(slope)})")


def _times(net: Passing) -> None:
    factor = net.rng.normal(size=(1, net.channels, 1, 1)).astype(np.float32)
    net.add(f"Mul({net.constant(factor)}, {net.last})")


def _resized(net: Passing) -> None:
    scales = net.constant(np.array([1.0, 1.0, 2.0, 2.0], np.float32))
    net.add(f'Resize<mode="linear">({net.last}, , {scales})')
    net.add(f"AveragePool<kernel_shape=[2,2], strides=[2,2]>({net.last})")


def _bordered(net: Passing) -> None:
    sizes = net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    net.add(f"Pad({net.last}, {sizes})")
    ends = [net.constant(np.array(pair)) for pair in ((0, 1), (6, 7), (2, 3))]
    net.add(f"Slice({net.last}, {', '.join(ends)})")


def _simple(call: str) -> Callable[[Passing], None]:
    return lambda net: void(net.add(call.format(net.last)))


def void(name: str) -> None:
    """Nothing."""


STEPS: Mapping[str, Callable[[Passing], None]] = {
    "conv": lambda net: void(net.conv(int(net.rng.integers(2, 7)), 3)),
    "depthwise": _depthwise,
    "grouped": _grouped,
    "transposed": _transposed,
    "residual": _residual,
    "concat": _concat,
    "gather": _gather,
    "split": _split,
    "pixels": _pixels,
    "prelu": _prelu,
    "times": _times,
    "resized": _resized,
    "bordered": _bordered,
    "relu": _simple("Relu({})"),
    "leaky": _simple("LeakyRelu<alpha=0.3>({})"),
    "max pool": _simple("MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({})"),
    "average pool": _simple("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>({})"),
    "turned": _simple("Transpose<perm=[0,1,3,2]>({})"),
}


def _shifted(net: Passing) -> None:
    """Every channel in the next one's place, zeros in the first."""
    sizes = net.constant(np.array([0, 1, 0, 0, 0, -1, 0, 0]))
    net.add(f"Pad({net.last}, {sizes})")


def _widened(net: Passing) -> None:
    sizes, axes = net.constant(np.array([1, 0])), net.constant(np.array([1]))
    net.add(f"Pad({net.last}, {sizes}, , {axes})")
    net.channels += 1


def _framed(net: Passing) -> None:
    """By a number other than zero, and cut to the size."""
    sizes = net.constant(np.array([0, 0, 1, 1, 0, 0, -1, -1]))
    net.add(f"Pad({net.last}, {sizes}, {net.constant(np.array(0.5, np.float32))})")


def _reversed(net: Passing) -> None:
    start, end, axis, step = (net.constant(np.array([at])) for at in (-1, -100, 1, -1))
    net.add(f"Slice({net.last}, {start}, {end}, {axis}, {step})")


def _blended(net: Passing) -> None:
    """Channels resized too, by so little that they stay as many."""
    scales = net.constant(np.array([1.0, 1.01, 1.0, 1.0], np.float32))
    net.add(f'Resize<mode="linear">({net.last}, , {scales})')


def _shared(net: Passing) -> None:
    """Two convolutions with one weight."""
    weight = net.weight(net.channels, net.channels, 1, 1)
    net.add(f"Conv({net.last}, {weight})")
    net.add(f"Relu({net.last})")
    net.add(f"Conv({net.last}, {weight})")


STOPPING: Mapping[str, Callable[[Passing], None]] = {
    "shifted": _shifted,
    "widened": _widened,
    "framed": _framed,
    "reversed": _reversed,
    "blended": _blended,
    "shared": _shared,
    "relu6": _simple("Clip({}, zero, six)"),
    "sigmoid": _simple("Sigmoid({})"),
}
"""Steps that no factor passes as they stand."""


def network(steps: Sequence[str], pooled: bool, seed: int) -> Network:
    """A convolution, the steps, and a linear of every pixel, or of their means where `pooled`."""
    net = Passing(seed)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    net.conv(4)
    for name in steps:
        {**STEPS, **STOPPING}[name](net)
    if pooled:
        net.add(f"GlobalAveragePool({net.last})")
        net.size = 1
    net.add(f"Flatten<axis=1>({net.last})")
    weight, bias = net.weight(3, net.channels * net.size**2), net.weight(3)
    net.lines.append(f"output = Gemm<transB=1>({net.last}, {weight}, {bias})")
    body = "\n".join(net.lines)
    return graph(f"(float[1,2,6,6] input) => (float[1,3] output) {{\n{body}\n}}", net.constants)
