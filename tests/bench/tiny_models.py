"""Model files small enough to run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.tflite_writer import write_tflite
from deploykit.spec.operators import IntegerWeight, Linear
from deploykit.spec.quantized import ActivationTensor, Port, Quantization, QuantizedNetwork


def write_convolution(path: Path) -> None:
    """y [n, 2, 6, 6] = 3x3 convolution with ones of x [n, 1, 8, 8] float32."""
    weight = numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def write_linear(path: Path) -> None:
    """y [1, 2] = sums of the two halves of x [1, 4], in int8 steps of 1/64, as TFLite."""
    step = Quantization(1 / 64, 0)
    halves = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.int8)
    weight = IntegerWeight("weight", halves, np.ones(2, np.float32))
    network = QuantizedNetwork(
        tensors={
            "x": ActivationTensor("x", (1, 4), step),
            "y": ActivationTensor("y", (1, 2), step),
        },
        operators=(Linear("sum", "x", "y", weight, np.zeros(2, np.int32)),),
        inputs=(Port("x", "x"),),
        outputs=(Port("y", "y"),),
    )
    path.write_bytes(write_tflite(network))
