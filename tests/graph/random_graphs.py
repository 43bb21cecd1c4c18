"""A grammar of random networks with dead, constant and coupled channels, in float64.

In float64, so that what removal does is exact to 1e-12 and a wrong term cannot hide in rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network

Shape = tuple[int, ...]
BIASES = (-1.5, -0.5, 0.0, 0.0, 0.5, 2.0, 4.0)


@dataclass
class Growing:
    """A graph under construction. shapes: [C, H, W] or [F] by tensor; `last` is read next."""

    draw: st.DrawFn
    rng: np.random.Generator
    shapes: dict[str, Shape]
    last: str = "input"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, AnyArray] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """Of the tensor that is read next."""
        return self.shapes[self.last]

    def put(self, operator: str, shape: Shape, *constants: AnyArray, **attributes: Any) -> None:
        """Append a node that reads `last` and constants of its own."""
        self.join(operator, shape, [self.last], *constants, **attributes)

    def join(
        self,
        operator: str,
        shape: Shape,
        sources: list[str],
        *constants: AnyArray,
        **attributes: Any,
    ) -> None:
        """Append a node that reads `sources` and constants of its own."""
        output = f"t{len(self.nodes)}"
        names = [f"{output}.{index}" for index in range(len(constants))]
        self.constants.update(zip(names, constants, strict=True))
        self.nodes.append(helper.make_node(operator, [*sources, *names], [output], **attributes))
        self.shapes[output] = shape
        self.last = output

    def kernels(self, *shape: int) -> AnyArray:
        """Random weights [O, I, ...] with dead rows, dead columns and dead single kernels."""
        loudness = self.rng.choice([0.05, 1.0], size=(1, shape[1], *(1,) * (len(shape) - 2)))
        weight = self.rng.normal(size=shape) * loudness
        rows, columns = self.rng.random(shape[0]) < 0.4, self.rng.random(shape[1]) < 0.2
        weight[rows] = 0.0
        weight[:, columns] = 0.0
        weight[self.rng.random(shape[:2]) < 0.2] = 0.0
        return np.asarray(weight)

    def biases(self, count: int) -> AnyArray:
        """Values of which some are equal, so that constants meet."""
        return self.rng.choice(BIASES, size=count)

    def per_channel(self) -> AnyArray:
        """[C, 1, 1] or [F], or one number, with zeros and negatives."""
        count = 1 if self.rng.random() < 0.2 else self.shape[0]
        drawn = self.rng.choice([-2.0, -0.5, 0.0, 1.0, 3.0], size=count)
        return np.asarray(drawn.reshape(-1, *(1,) * (len(self.shape) - 1)))

    def window(self, largest: int) -> tuple[dict[str, list[int]], tuple[int, int]] | None:
        """Attributes of a random window and the size it makes; None where it does not fit."""
        kernel, strides, dilations, begins, ends, sizes = [], [], [], [], [], []
        for length in self.shape[1:]:
            k = self.draw(st.integers(1, largest))
            stride, dilation = self.draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
            begin, end = (self.draw(st.integers(0, k - 1)) for _ in range(2))
            size = (length + begin + end - (k - 1) * dilation - 1) // stride + 1
            if size < 1:
                return None
            kernel.append(k)
            strides.append(stride)
            dilations.append(dilation)
            begins.append(begin)
            ends.append(end)
            sizes.append(size)
        attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
        return {**attributes, "pads": [*begins, *ends]}, (sizes[0], sizes[1])


def conv(growing: Growing) -> None:
    """A convolution with random geometry."""
    found = growing.window(3)
    if found is None:
        return
    attributes, size = found
    outputs = growing.draw(st.integers(1, 6))
    kernel = growing.kernels(outputs, growing.shape[0], *attributes["kernel_shape"])
    growing.put("Conv", (outputs, *size), kernel, growing.biases(outputs), **attributes)


def depthwise(growing: Growing) -> None:
    """One kernel per channel."""
    found = growing.window(3)
    if found is None:
        return
    attributes, size = found
    count = growing.shape[0]
    kernel = growing.kernels(count, 1, *attributes["kernel_shape"])
    bias = growing.biases(count)
    growing.put("Conv", (count, *size), kernel, bias, group=count, **attributes)


def residual(growing: Growing) -> None:
    """The sum or product with an earlier tensor of the same shape, if there is one."""
    equal = [n for n, s in growing.shapes.items() if s == growing.shape and n != growing.last]
    if equal:
        other = growing.draw(st.sampled_from(equal))
        operator = growing.draw(st.sampled_from(["Add", "Add", "Sub", "Mul"]))
        growing.join(operator, growing.shape, [growing.last, other])


def block(growing: Growing) -> None:
    """x + conv(relu(conv(x))), as residual networks have it, with a padded 3 x 3 kernel."""
    start, count = growing.last, growing.shape[0]
    inner = growing.draw(st.integers(1, 4))
    for outputs in (inner, count):
        kernel = growing.kernels(outputs, growing.shape[0], 3, 3)
        shape = (outputs, *growing.shape[1:])
        growing.put("Conv", shape, kernel, growing.biases(outputs), pads=[1] * 4)
        if outputs is inner:
            activation(growing)
    growing.join("Add", growing.shape, [growing.last, start])


def branch(growing: Growing) -> None:
    """Read an earlier image next, so that it gets several readers."""
    images = [name for name, shape in growing.shapes.items() if len(shape) == 3]
    growing.last = growing.draw(st.sampled_from(images))


def activation(growing: Growing) -> None:
    """Any activation with a row."""
    kind = growing.draw(st.sampled_from(["Relu", "Relu", "Clip", "LeakyRelu", "HardSwish", "Tanh"]))
    bounds = [np.array(-0.5), np.array(1.5)] if kind == "Clip" else []
    growing.put(kind, growing.shape, *bounds)


def affine(growing: Growing) -> None:
    """A constant per channel, on either side of no operator in particular."""
    kind = growing.draw(st.sampled_from(["Mul", "Add", "Sub"]))
    growing.put(kind, growing.shape, growing.per_channel())


def norm(growing: Growing) -> None:
    """A batch norm that stays, since it has no layer to go into."""
    count = growing.shape[0]
    gamma = growing.rng.choice([-1.0, 0.0, 0.5, 2.0], size=count)
    spread = growing.rng.uniform(0.5, 2.0, size=count)
    parameters = gamma, growing.biases(count), growing.rng.normal(size=count), spread
    growing.put("BatchNormalization", growing.shape, *parameters)


def pool(growing: Growing) -> None:
    """Largest or mean, with padding that counts or not."""
    found = growing.window(3)
    if found is None:
        return
    attributes, size = found
    shape = (growing.shape[0], *size)
    has_holes = set(attributes["dilations"]) != {1}
    if has_holes and any(attributes["pads"]):
        return  # A window may lie wholly in the padding, where there is no largest value.
    if has_holes or growing.draw(st.booleans()):
        growing.put("MaxPool", shape, **attributes)
    else:
        counted = growing.draw(st.integers(0, 1))
        growing.put("AveragePool", shape, count_include_pad=counted, **attributes)


def border(growing: Growing) -> None:
    """An operator without a row. Over one channel it would be 1, and the network no network."""
    if growing.shape[0] > 1:
        growing.put("Softmax", growing.shape, axis=1)


def head(growing: Growing) -> None:
    """Perhaps a global mean, then flatten and one or two linears."""
    count = growing.shape[0]
    if growing.draw(st.booleans()):
        growing.put("GlobalAveragePool", (count, 1, 1))
    features = int(np.prod(growing.shape))
    growing.put("Flatten", (features,))
    for outputs in growing.draw(st.sampled_from([(3,), (4, 2)])):
        kernel = growing.kernels(outputs, growing.shape[0])
        growing.put("Gemm", (outputs,), kernel, growing.biases(outputs), transB=1)
        if outputs == 4:
            activation(growing)


STEPS = (
    conv, conv, conv, depthwise, block, block, residual, residual, branch, activation, activation,
    affine, norm, pool, border,
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A random network to an image or to scores, in float64, each weight with a variance."""
    seed = draw(st.integers(0, 2**32 - 1))
    image = (draw(st.integers(1, 3)), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    growing = Growing(draw, np.random.default_rng(seed), {"input": image})
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=10)):
        step(growing)
    if draw(st.booleans()) or growing.last == "input":
        head(growing)
    return finish(growing)


def finish(growing: Growing) -> Network:
    """The network whose output is the last tensor, without the nodes that it does not need."""
    kind = TensorProto.DOUBLE
    needed = {growing.last}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(growing.nodes):
        if needed & set(node.output):
            needed.update(node.input)
            nodes.insert(0, node)
    constants = {name: value for name, value in growing.constants.items() if name in needed}
    shape = (1, *growing.shape)
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info("input", kind, (1, *growing.shapes["input"]))],
            [helper.make_tensor_value_info(growing.last, kind, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    uncertain = {name: value for name, value in constants.items() if value.ndim}
    variance = {name: _spread(growing.rng, value) for name, value in uncertain.items()}
    return Network(ir.from_proto(inferred), variance)


def _spread(rng: np.random.Generator, value: AnyArray) -> Float32Array:
    return rng.uniform(0.1, 1.0, size=value.shape).astype(np.float32)


def as_float32(network: Network) -> Network:
    """The same network with float32 numbers, as runtimes want it."""
    proto = ir.to_proto(network.model)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return Network(ir.from_proto(proto), network.variance)
