"""Builds small integer networks operator by operator, with seeded random weights and scales."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.reference.window import output_size
from deploykit.spec.carriers import ANY_RUNTIME, CarrierOptions, Layer, chosen_carriers, layer_kind
from deploykit.spec.network import Network, static_shape
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
    Function,
    Gather,
    GlobalAveragePool,
    IntegerTable,
    IntegerWeight,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Operator,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Sub,
    Window,
)
from deploykit.spec.quantized import (
    ActivationTensor,
    ConstantTensor,
    IndexTensor,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
    int_range,
)

FIXED = {
    Function.SIGMOID: Quantization(1 / 256, -128),
    Function.TANH: Quantization(1 / 128, 0),
}


class Builder:
    """A network under construction; every method returns the name of the tensor it makes.

    Output scales are such that outputs use most of the int8 range; `saturation` > 1 makes them
    smaller, so that many outputs clip. bits: of weights, whose carriers are the table's.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        bits: int = 8,
        carriers: CarrierOptions = ANY_RUNTIME,
    ) -> None:
        self.rng = rng
        self.bits, self.carriers = bits, carriers
        self._tensors: dict[str, ActivationTensor] = {}
        self._operators: list[Operator] = []
        self._constants: dict[str, ConstantTensor] = {}
        self._indices: dict[str, IndexTensor] = {}
        self.input = self._tensor("x0", shape, self.quantization(0.02))

    def quantization(self, scale: float, zero_point: int | None = None) -> Quantization:
        """A scale within 20 % of the one given, and a random zero point unless one is given."""
        near = float(np.float32(scale * self.rng.uniform(0.8, 1.2)))
        drawn = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        return Quantization(near, drawn)

    def of(self, tensor: str) -> ActivationTensor:
        """A tensor made so far."""
        return self._tensors[tensor]

    def conv(
        self,
        source: str,
        channels: int,
        window: Window,
        groups: int = 1,
        saturation: float = 1.0,
        zero_point: int | None = None,
    ) -> str:
        """A convolution."""
        shape = self.of(source).shape
        kernel = (channels, shape[1] // groups, *window.kernel)
        plain = window.strides == (1, 1) and not any(window.pads)
        weight, bias, scale = self._weight(source, kernel, layer_kind(kernel, plain, groups))
        into = (shape[0], channels, *output_size(shape, window))
        output = self._next(into, self.quantization(scale / saturation, zero_point))
        self._operators.append(Conv(f"conv_{output}", source, output, weight, bias, window, groups))
        return output

    def linear(self, source: str, features: int, saturation: float = 1.0) -> str:
        """A fully connected layer."""
        shape = self.of(source).shape
        weight, bias, scale = self._weight(source, (features, shape[1]), Layer.LINEAR)
        output = self._next((shape[0], features), self.quantization(scale / saturation))
        self._operators.append(Linear(f"linear_{output}", source, output, weight, bias))
        return output

    def add(self, left: str, right: str, quantization: Quantization | None = None) -> str:
        """A sum, on a scale of its own unless one is given."""
        scale = self.of(left).quantization.scale + self.of(right).quantization.scale
        shape = np.broadcast_shapes(self.of(left).shape, self.of(right).shape)
        output = self._next(shape, quantization or self.quantization(scale))
        self._operators.append(Add(f"add_{output}", left, right, output))
        return output

    def sub(self, left: str, right: str) -> str:
        """A difference of shapes that broadcast, on a scale of its own."""
        scale = self.of(left).quantization.scale + self.of(right).quantization.scale
        shape = np.broadcast_shapes(self.of(left).shape, self.of(right).shape)
        output = self._next(shape, self.quantization(scale))
        self._operators.append(Sub(f"sub_{output}", left, right, output))
        return output

    def maximum(self, left: str, right: str) -> str:
        """The larger of two tensors that share one quantization."""
        output = self._next(self.of(left).shape, self.of(left).quantization)
        self._operators.append(Maximum(f"maximum_{output}", left, right, output))
        return output

    def minimum(self, left: str, right: str) -> str:
        """The smaller of the same."""
        output = self._next(self.of(left).shape, self.of(left).quantization)
        self._operators.append(Minimum(f"minimum_{output}", left, right, output))
        return output

    def compare(self, kind: type[Maximum | Minimum], source: str, values: np.ndarray) -> str:
        """The larger or smaller of a tensor and integers of its own quantization."""
        name, tensor = f"constant_{len(self._constants)}", self.of(source)
        self._constants[name] = ConstantTensor(name, values, tensor.quantization)
        output = self._next(tensor.shape, tensor.quantization)
        self._operators.append(kind(f"compared_{output}", source, name, output))
        return output

    def mul(self, left: str, right: str, quantization: Quantization | None = None) -> str:
        """A product of shapes that broadcast, on a scale of its own unless one is given."""
        scales = [self.of(name).quantization.scale for name in (left, right)]
        scale = float(np.prod(scales)) * 60
        shape = max(
            self.of(left).shape, self.of(right).shape, key=lambda shape: int(np.prod(shape))
        )
        output = self._next(shape, quantization or self.quantization(scale))
        self._operators.append(Mul(f"mul_{output}", left, right, output))
        return output

    def add_constant(self, source: str, values: np.ndarray, into: Quantization) -> str:
        """A sum with a constant that is an integer times `into`'s scale."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = ConstantTensor(name, values, self.quantization(into.scale))
        output = self._next(self.of(source).shape, into)
        self._operators.append(Add(f"add_{output}", source, name, output))
        return output

    def mul_constant(self, source: str, values: np.ndarray) -> str:
        """A product with a constant."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = ConstantTensor(name, values, self.quantization(0.02))
        scale = self.of(source).quantization.scale * 0.02 * 60
        output = self._next(self.of(source).shape, self.quantization(scale))
        self._operators.append(Mul(f"mul_{output}", source, name, output))
        return output

    def lookup(self, source: str, function: Function, parameter: float = 0.0) -> str:
        """A tabulated function, on the scale that runtimes want for it."""
        free = Quantization(self.of(source).quantization.scale, -100)
        output = self._next(self.of(source).shape, FIXED.get(function, free))
        self._operators.append(Lookup(f"lookup_{output}", source, output, function, parameter))
        return output

    def concat(self, *sources: str, axis: int = 1) -> str:
        """A concatenation of tensors that share one quantization."""
        shape = list(self.of(sources[0]).shape)
        shape[axis] = sum(self.of(source).shape[axis] for source in sources)
        output = self._next(tuple(shape), self.of(sources[0]).quantization)
        self._operators.append(Concat(f"concat_{output}", sources, output, axis))
        return output

    def slice(self, source: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """A part of a tensor."""
        tensor = self.of(source)
        shape = list(tensor.shape)
        shape[axis] = len(range(start, stop, step))
        output = self._next(tuple(shape), tensor.quantization)
        self._operators.append(Slice(f"slice_{output}", source, output, axis, start, stop, step))
        return output

    def gather(self, source: str, *indices: int, axis: int = 1) -> str:
        """Positions of an axis in another order."""
        tensor = self.of(source)
        shape = list(tensor.shape)
        shape[axis] = len(indices)
        output = self._next(tuple(shape), tensor.quantization)
        self._operators.append(Gather(f"gather_{output}", source, output, axis, indices))
        return output

    def embedding(self, rows: int, columns: int, *sizes: int) -> str:
        """Rows of a table by whole numbers of the port `ids`, [batch, *sizes]."""
        batch = self.of(self.input).shape[0]
        self._indices["ids"] = IndexTensor("ids", (batch, *sizes), rows)
        output = self._next((batch, *sizes, columns), self.quantization(0.03))
        drawn = self.rng.integers(-128, 128, (rows, columns)).astype(np.int8)
        table = IntegerTable(f"table_{output}", drawn)
        self._operators.append(Embedding(f"embedding_{output}", "ids", output, table))
        return output

    def arg_max(self, source: str, axis: int, dtype: str = "int64", kept: bool = False) -> str:
        """Which entry is largest, as whole numbers."""
        shape = list(self.of(source).shape)
        limit = shape[axis]
        shape[axis : axis + 1] = [1] if kept else []
        self._indices["output"] = IndexTensor("output", tuple(shape), limit, dtype)
        self._operators.append(ArgMax("largest", source, "output", axis))
        return "output"

    def repeat(self, source: str, rows: int, columns: int) -> str:
        """Repeated pixels."""
        tensor = self.of(source)
        batch, channels, height, width = tensor.shape
        output = self._next((batch, channels, height * rows, width * columns), tensor.quantization)
        self._operators.append(Repeat(f"repeat_{output}", source, output, rows, columns))
        return output

    def depth_to_space(self, source: str, block: int) -> str:
        """Channels as pixels."""
        tensor = self.of(source)
        batch, depth, height, width = tensor.shape
        shape = (batch, depth // block**2, height * block, width * block)
        output = self._next(shape, tensor.quantization)
        self._operators.append(DepthToSpace(f"depth_{output}", source, output, block))
        return output

    def space_to_depth(self, source: str, block: int) -> str:
        """Pixels as channels."""
        tensor = self.of(source)
        batch, channels, height, width = tensor.shape
        shape = (batch, channels * block**2, height // block, width // block)
        output = self._next(shape, tensor.quantization)
        self._operators.append(SpaceToDepth(f"space_{output}", source, output, block))
        return output

    def leaky_relu(self, source: str, slope: int) -> str:
        """A slope in 1/256ths under the zero point."""
        tensor = self.of(source)
        output = self._next(tensor.shape, tensor.quantization)
        self._operators.append(LeakyRelu(f"leaky_{output}", source, output, slope))
        return output

    def pad(self, source: str, pads: tuple[int, int, int, int], fill: int | None = None) -> str:
        """Pixels around an image, of the real value zero unless an integer is given."""
        tensor = self.of(source)
        top, left, bottom, right = pads
        batch, channels, height, width = tensor.shape
        shape = (batch, channels, top + height + bottom, left + width + right)
        held = tensor.quantization.zero_point if fill is None else fill
        output = self._next(shape, tensor.quantization)
        self._operators.append(Pad(f"pad_{output}", source, output, pads, held))
        return output

    def reshape(self, source: str, *shape: int) -> str:
        """The same integers in another shape, the batch apart."""
        tensor = self.of(source)
        output = self._next((tensor.shape[0], *shape), tensor.quantization)
        self._operators.append(Reshape(f"reshape_{output}", source, output))
        return output

    def max_pool(self, source: str, window: Window) -> str:
        """A max pool."""
        tensor = self.of(source)
        shape = (*tensor.shape[:2], *output_size(tensor.shape, window))
        output = self._next(shape, tensor.quantization)
        self._operators.append(MaxPool(f"pool_{output}", source, output, window))
        return output

    def global_average_pool(self, source: str) -> str:
        """A global average pool, on a scale of its own."""
        tensor = self.of(source)
        quantization = self.quantization(tensor.quantization.scale / 2)
        output = self._next((*tensor.shape[:2], 1, 1), quantization)
        self._operators.append(GlobalAveragePool(f"average_{output}", source, output))
        return output

    def flatten(self, source: str) -> str:
        """A flatten."""
        tensor = self.of(source)
        features = int(np.prod(tensor.shape[1:]))
        output = self._next((tensor.shape[0], features), tensor.quantization)
        self._operators.append(Flatten(f"flatten_{output}", source, output))
        return output

    def clamp(self, source: str, low: int, high: int) -> str:
        """A clamp."""
        tensor = self.of(source)
        output = self._next(tensor.shape, tensor.quantization)
        self._operators.append(Clamp(f"clamp_{output}", source, output, low, high))
        return output

    def rearrange(self, source: str, text: str, **constants: np.ndarray) -> str:
        """A chain of nodes in ONNX text, from `x` to `y`."""
        body, shape = self._body(text, (source,), constants)
        output = self._next(shape, self.of(source).quantization)
        self._operators.append(Rearrange(f"rearrange_{output}", source, output, body))
        return output

    def island(self, *sources: str, text: str, scale: float, **constants: np.ndarray) -> str:
        """Float nodes in ONNX text, from `x`, `x1`, ... to `y`."""
        body, shape = self._body(text, sources, constants)
        output = self._next(shape, self.quantization(scale))
        self._operators.append(Island(f"island_{output}", sources, output, body))
        return output

    def _body(
        self, text: str, sources: tuple[str, ...], constants: dict[str, np.ndarray]
    ) -> tuple[Network, tuple[int, ...]]:
        ports = ", ".join(
            f"float[{','.join(map(str, self.of(name).shape))}] x{i or ''}"
            for i, name in enumerate(sources)
        )
        made = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["": 20]>body ({ports}) => (float[] y) {{ {text} }}'
        )
        for name, values in constants.items():
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        for node in made.graph.node:
            node.name = node.output[0]
        made.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
        network = Network(ir.from_proto(inferred), {})
        shape = static_shape(network.model.graph.outputs[0])
        assert shape is not None, "shapes have to follow from the text"
        return network, shape

    def network(self, *outputs: str, io: IoType = IoType.FLOAT) -> QuantizedNetwork:
        """The network, whose ports are called `input`, `ids`, `output`, `output1`, ..."""
        ports = tuple(Port(f"output{i or ''}", name) for i, name in enumerate(outputs))
        return QuantizedNetwork(
            dict(self._tensors),
            tuple(self._operators),
            (Port("input", self.input), *((Port("ids", "ids"),) if "ids" in self._indices else ())),
            ports,
            io,
            dict(self._constants),
            indices=dict(self._indices),
            min_ort=self.carriers.min_ort,
        )

    def _weight(
        self, source: str, shape: tuple[int, ...], layer: Layer
    ) -> tuple[IntegerWeight, np.ndarray, float]:
        """Weights, bias, and the output scale at which the outputs fill the range."""
        name = f"weight_{len(self._operators)}"
        _, largest = int_range(self.bits)
        spread = 40 if self.bits == 8 else 0.6 * largest
        drawn = np.rint(self.rng.normal(0, spread, shape))
        values = np.clip(drawn, -largest, largest).astype(np.int8)
        steps = 127 / largest
        scales = (steps * self.rng.uniform(0.002, 0.01, shape[0])).astype(np.float32)
        reach = spread * 75 * float(np.sqrt(np.prod(shape[1:])))
        bias = np.rint(self.rng.normal(0, reach / 4, shape[0])).astype(np.int32)
        into = self.of(source).quantization.scale * float(scales.mean()) * reach / 40
        chosen = chosen_carriers(layer, self.bits, shape, self.carriers)
        return IntegerWeight(name, values, scales, self.bits, chosen), bias, into

    def _next(self, shape: tuple[int, ...], quantization: Quantization) -> str:
        return self._tensor(f"x{len(self._tensors)}", shape, quantization)

    def _tensor(self, name: str, shape: tuple[int, ...], quantization: Quantization) -> str:
        self._tensors[name] = ActivationTensor(name, shape, quantization)
        return name
