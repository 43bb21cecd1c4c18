"""Small model files whose time tells what a layer costs at a width.

Three shapes of graph, G a global average pool that keeps the output small:

    chain   x -> (R -> c -> R) * repeats -> G        layers in a row: nothing is packed in between
    fan     x -> R -> c -> three of (c -> R -> G)    reads the tensor of c channels three times
    single  x -> R -> R -> ... -> G                  one chain at the reference width R

A depthwise layer is measured between the pointwise ones that surround it in a network. Linears
have one row and no pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_float import write_float_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.graph.widths.host import Element, Runtime
from deploykit.graph.widths.table import LayerKind
from deploykit.spec.network import Network
from deploykit.spec.operators import (
    Conv,
    GlobalAveragePool,
    IntegerWeight,
    Linear,
    Operator,
    Window,
)
from deploykit.spec.quantized import ActivationTensor, IoType, Port, Quantization, QuantizedNetwork

OPSET = 17


@dataclass(frozen=True)
class Layer:
    """source, output: names of tensors; kernel: of a square window, 0 for a linear."""

    source: str
    output: str
    inputs: int
    outputs: int
    kernel: int
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[O, I] or [O, I/groups, k, k]."""
        window = (self.kernel, self.kernel) if self.kernel else ()
        return (self.outputs, self.inputs // self.groups, *window)

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear."""
        return not self.kernel


@dataclass(frozen=True)
class WidthModel:
    """Layers that read tensor "x" of [1, channels, side, side], or [1, channels] where side is 0.

    ends: tensors that end in a pool, or are outputs where there are no pixels.
    """

    side: int
    channels: int
    layers: tuple[Layer, ...]
    ends: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, pools not counted."""
        positions = max(self.side, 1) ** 2
        return sum(positions * int(np.prod(layer.weight_shape)) for layer in self.layers)

    def shape(self, channels: int) -> tuple[int, ...]:
        """Shape of a tensor of so many channels."""
        return (1, channels, self.side, self.side) if self.side else (1, channels)


KERNELS = {
    LayerKind.SPATIAL: 3,
    LayerKind.POINTWISE: 1,
    LayerKind.DEPTHWISE: 3,
    LayerKind.LINEAR: 0,
}


def row(kind: LayerKind, side: int, widths: Sequence[int]) -> WidthModel:
    """Layers in a row: widths[0] -> widths[1] -> ..."""
    layers = tuple(
        Layer(_tensor(place), _tensor(place + 1), inputs, outputs, KERNELS[kind])
        for place, (inputs, outputs) in enumerate(pairwise(widths))
    )
    return WidthModel(side, widths[0], layers, (layers[-1].output,))


def fan(kind: LayerKind, side: int, reference: int, width: int, readers: int) -> WidthModel:
    """One layer that makes `width` channels, and so many that read them."""
    kernel = KERNELS[kind]
    maker = Layer("x", "t1", reference, width, kernel)
    reading = tuple(
        Layer("t1", f"end{place}", width, reference, kernel) for place in range(readers)
    )
    return WidthModel(side, reference, (maker, *reading), tuple(layer.output for layer in reading))


def separable(side: int, widths: Sequence[int]) -> WidthModel:
    """Pointwise layers in a row, a depthwise one at widths[1], widths[3], ..."""
    layers: list[Layer] = []
    source = "x"
    for place, (inputs, outputs) in enumerate(pairwise(widths)):
        layers.append(Layer(source, _tensor(place + 1), inputs, outputs, 1))
        source = _tensor(place + 1)
        if place % 2 == 0:
            layers.append(Layer(source, f"{source}d", outputs, outputs, 3, outputs))
            source = f"{source}d"
    return WidthModel(side, widths[0], tuple(layers), (source,))


def _tensor(place: int) -> str:
    return f"t{place}" if place else "x"


def model_file(model: WidthModel, runtime: Runtime, element: Element) -> tuple[str, bytes]:
    """(suffix, bytes) of the model as deploykit writes it for a runtime; weights are random."""
    is_float = element is Element.FLOAT32
    match runtime:
        case Runtime.ORT if is_float:
            return ".onnx", float_onnx(model).SerializeToString()
        case Runtime.ORT:
            return ".onnx", write_onnx(integer_network(model, IoType.UINT8))
        case Runtime.LITERT if is_float:
            network = Network(ir.from_proto(float_onnx(model)), {})
            return ".tflite", write_float_tflite(network)
        case Runtime.LITERT:
            return ".tflite", write_tflite(integer_network(model, IoType.INT8))
        case _:
            assert_never(runtime)


def float_onnx(model: WidthModel) -> onnx.ModelProto:
    """The float graph, with the shape of every tensor."""
    rng = np.random.default_rng(0)
    nodes, initializers, infos = [], [], []
    for layer in model.layers:
        name = layer.output
        fan_in = int(np.prod(layer.weight_shape[1:]))
        weight = rng.standard_normal(layer.weight_shape, np.float32) / np.float32(fan_in**0.5)
        bias = rng.standard_normal(layer.outputs, np.float32)
        initializers += [
            numpy_helper.from_array(weight, f"{name}.weight"),
            numpy_helper.from_array(bias, f"{name}.bias"),
        ]
        inputs = [layer.source, f"{name}.weight", f"{name}.bias"]
        if layer.is_linear:
            nodes.append(helper.make_node("Gemm", inputs, [name], name=f"n.{name}", transB=1))
        else:
            node = helper.make_node(
                "Conv",
                inputs,
                [name],
                name=f"n.{name}",
                kernel_shape=[layer.kernel] * 2,
                pads=[layer.kernel // 2] * 4,
                group=layer.groups,
            )
            nodes.append(node)
        infos.append(_info(name, model.shape(layer.outputs)))
    outputs = []
    for end in model.ends:
        pooled = f"{end}.out" if model.side else end
        channels = next(layer.outputs for layer in model.layers if layer.output == end)
        if model.side:
            nodes.append(helper.make_node("GlobalAveragePool", [end], [pooled], name=pooled))
        outputs.append(_info(pooled, (1, channels, 1, 1) if model.side else (1, channels)))
    ports = {info.name for info in outputs}
    graph = helper.make_graph(
        nodes,
        "widths",
        [_info("x", model.shape(model.channels))],
        outputs,
        initializers,
        value_info=[info for info in infos if info.name not in ports],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)])


def _info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def integer_network(model: WidthModel, io: IoType) -> QuantizedNetwork:
    """The same layers in int8, at scales that use the range."""
    rng = np.random.default_rng(0)
    quantization = Quantization(2.0**-5, 3)
    tensors = {"x": ActivationTensor("x", model.shape(model.channels), quantization)}
    operators: list[Operator] = []
    for layer in model.layers:
        fan_in = int(np.prod(layer.weight_shape[1:]))
        values = rng.integers(-127, 128, layer.weight_shape).astype(np.int8)
        scale = np.full(layer.outputs, 1 / (73 * fan_in**0.5), np.float32)
        weight = IntegerWeight(f"{layer.output}.weight", values, scale)
        bias = rng.integers(-99, 100, layer.outputs).astype(np.int32)
        name, source, output = f"n.{layer.output}", layer.source, layer.output
        if layer.is_linear:
            operators.append(Linear(name, source, output, weight, bias))
        else:
            window = Window((layer.kernel,) * 2, pads=(layer.kernel // 2,) * 4)
            operators.append(Conv(name, source, output, weight, bias, window, layer.groups))
        tensors[output] = ActivationTensor(output, model.shape(layer.outputs), quantization)
    ports: list[Port] = []
    for end in model.ends:
        pooled = f"{end}.out" if model.side else end
        if model.side:
            channels = tensors[end].shape[1]
            tensors[pooled] = ActivationTensor(pooled, (1, channels, 1, 1), quantization)
            operators.append(GlobalAveragePool(f"n.{pooled}", end, pooled))
        ports.append(Port(f"y{len(ports)}", pooled))
    return QuantizedNetwork(tensors, tuple(operators), (Port("input", "x"),), tuple(ports), io)
