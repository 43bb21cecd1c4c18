"""An ONNX graph as the removal benchmark sees it: constants, and every tensor's value in ORT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """model: its constants are initializers; constants: those, by name."""

    model: onnx.ModelProto
    constants: Mapping[str, Array]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """In graph order."""
        return list(self.model.graph.node)

    @property
    def input_name(self) -> str:
        """Of the one input that is no initializer."""
        (port,) = (value for value in self.model.graph.input if value.name not in self.constants)
        return str(port.name)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Sizes; a symbolic one counts as 1."""
        (port,) = (value for value in self.model.graph.input if value.name not in self.constants)
        return tuple(max(size.dim_value, 1) for size in port.type.tensor_type.shape.dim)

    @property
    def output_names(self) -> list[str]:
        """In graph order."""
        return [value.name for value in self.model.graph.output]


def graph_of(model: onnx.ModelProto) -> Graph:
    """Read the constants out, once."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            (value,) = node.attribute
            constants[node.output[0]] = _constant(value)
    return Graph(model, constants)


def _constant(attribute: onnx.AttributeProto) -> Array:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    return np.asarray(value, dtype=np.int64 if "int" in attribute.name else np.float32)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """By name, as Python values."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


class Session:
    """ORT on one thread; with every tensor of the graph as an output, nothing is fused."""

    def __init__(self, model: onnx.ModelProto, every_tensor: bool = True) -> None:
        if not every_tensor:
            self._session = session(model)
            self._names = [value.name for value in model.graph.output]
            return
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        known = {value.name for value in opened.graph.output}
        for node in opened.graph.node:
            for name in node.output:
                if name and name not in known and node.op_type != "Constant":
                    opened.graph.output.append(onnx.ValueInfoProto(name=name))
        self._session = session(opened, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        self._names = [value.name for value in opened.graph.output]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every computed tensor by name."""
        return dict(zip(self._names, self._session.run(None, dict(feeds)), strict=True))


def session(model: onnx.ModelProto, level: Any = None) -> Any:
    """A quiet ORT session on one thread; level: graph optimizations, all by default."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if level is not None:
        options.graph_optimization_level = level
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def random_input(graph: Graph, seed: int) -> Array:
    """Float32 [1, C, ...]; every seed another contrast, brightness by channel and coarse pattern.

    White noise alone gives a pooled layer almost the same values every time.
    """
    generator = np.random.default_rng(seed)
    shape = graph.input_shape
    contrast, pattern = 10.0 ** generator.uniform(-1, 0.5, size=2)
    values = generator.normal(size=shape) * contrast
    if len(shape) > 2:
        one = (1,) * (len(shape) - 2)
        values += generator.normal(size=(1, shape[1], *one)) * pattern
        coarse = generator.normal(size=(1, shape[1], *(4,) * (len(shape) - 2))) * pattern
        for axis, size in enumerate(shape[2:], start=2):
            coarse = coarse.take(np.arange(size) * 4 // size, axis)
        values += coarse
    inputs: Array = values.astype(np.float32)
    return inputs
