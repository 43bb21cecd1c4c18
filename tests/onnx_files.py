"""Small ONNX files as exporters of every age write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.external_data_helper
from onnx import TensorProto, helper, numpy_helper

from deploykit.spec.arrays import AnyArray

Sizes = Sequence[int | str | None]


def file(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, npt.ArrayLike],
    inputs: Mapping[str, Sizes],
    outputs: Mapping[str, Sizes | None],
    opset: int = 20,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model; float constants become float32 unless they are numpy arrays already."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, kind, list(sizes)) for name, sizes in inputs.items()],
        [
            helper.make_tensor_value_info(name, kind, None if sizes is None else list(sizes))
            for name, sizes in outputs.items()
        ],
        [numpy_helper.from_array(_array(value), name) for name, value in constants.items()],
    )
    ir_version = 4 if opset < 11 else 8
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """The model in one file."""
    path.write_bytes(model.SerializeToString())
    return path


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its first output; names are separated by blanks, `-` leaves one out."""
    sources = ["" if name == "-" else name for name in inputs.split()]
    names = outputs.split()
    return helper.make_node(operator, sources, names, names[0], **attributes)


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Seeded standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def clip(opset: int, source: str, output: str) -> onnx.NodeProto:
    """Relu6: bounds are attributes up to opset 10, then the inputs `low` and `high`."""
    if opset < 11:
        return node("Clip", source, output, min=0.0, max=6.0)
    return node("Clip", f"{source} low high", output)


def classifier(
    opset: int = 20, batch: int | str = "N", dead: Sequence[int] = (1, 4)
) -> onnx.ModelProto:
    """[batch, 3, 8, 8] -> 5 classes: conv, batch norm, Relu6, pool, a Reshape that spells out the
    batch by Shape and Gather, linear. Of the convolution's 6 channels the `dead` ones are zero.
    """
    weight, gain, shift = normal(6, 3, 3, 3), np.ones(6), normal(6, seed=1)
    weight[list(dead)], shift[list(dead)] = 0.0, 0.0
    constants: dict[str, npt.ArrayLike] = {
        "stem.weight": weight, "bn.weight": gain, "bn.bias": shift, "bn.mean": np.zeros(6),
        "bn.var": np.ones(6), "head.weight": normal(5, 96, seed=2), "head.bias": normal(5, seed=3),
        "zero": np.array(0), "rest": np.array([-1]),
    }  # fmt: skip
    if opset >= 11:
        constants.update(low=0.0, high=6.0)
    unsqueeze = node("Unsqueeze", "count", "counts", axes=[0])
    if opset >= 13:
        constants["first"] = np.array([0])
        unsqueeze = node("Unsqueeze", "count first", "counts")
    nodes = [
        node("Conv", "image stem.weight", "stem", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "stem bn.weight bn.bias bn.mean bn.var", "bn"),
        clip(opset, "bn", "relu"),
        node("MaxPool", "relu", "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "pooled", "sizes"),
        node("Gather", "sizes zero", "count", axis=0),
        unsqueeze,
        node("Concat", "counts rest", "target", axis=0),
        node("Reshape", "pooled target", "flat"),
        node("Gemm", "flat head.weight head.bias", "logits", transB=1),
    ]
    return file(nodes, constants, {"image": [batch, 3, 8, 8]}, {"logits": [batch, 5]}, opset)


def weights_among_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """As before IR 4: every initializer is a graph input too."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    return model


def weights_as_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer becomes a Constant node."""
    for tensor in reversed(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    return model


def save_beside(model: onnx.ModelProto, path: Path, location: str = "net.data") -> Path:
    """Weights in a file beside the model."""
    onnx.external_data_helper.convert_model_to_external_data(
        model, all_tensors_to_one_file=True, location=location, size_threshold=0
    )
    onnx.save(model, path)
    return path


def point_at(path: Path, **entries: str) -> Path:
    """Change what every tensor of a saved model says of its data file."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def _array(value: npt.ArrayLike) -> AnyArray:
    array = np.asarray(value)
    if isinstance(value, np.ndarray) and array.dtype != np.float64:
        return array
    return array.astype(np.float32) if array.dtype.kind == "f" else array
