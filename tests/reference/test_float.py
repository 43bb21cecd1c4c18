"""The numpy evaluator against ONNX Runtime, operator by operator, and on batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.errors import DataError, GraphError, UnsupportedOperatorError
from deploykit.reference.float import EVALUATE, evaluate
from deploykit.runtime import ort
from deploykit.spec.network import Network

IMAGE = (1, 4, 9, 8)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


@dataclass(frozen=True)
class Row:
    """One node under test: operator, attributes, constants behind its first input."""

    op_type: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[np.ndarray | None, ...] = ()
    shape: tuple[int, ...] = IMAGE
    opset: int = 17

    def __str__(self) -> str:
        written = [f"{key}={value}" for key, value in self.attributes.items()]
        return "-".join([self.op_type, *written, f"rank{len(self.shape)}", str(self.opset)])

    def network(self) -> Network:
        names = [f"c{i}" if c is not None else "" for i, c in enumerate(self.constants)]
        node = helper.make_node(self.op_type, ["x", *names], ["y"], name="n", **self.attributes)
        return graph(
            [node],
            self.shape,
            {n: c for n, c in zip(names, self.constants, strict=True) if c is not None},
            self.opset,
        )


def graph(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: dict[str, np.ndarray],
    opset: int = 17,
) -> Network:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    return Network(ir.from_proto(model), {})


ROWS = (
    Row("Conv", {"pads": [1, 1, 1, 1]}, (weights(6, 4, 3, 3), weights(6))),
    Row("Conv", {"strides": [2, 1], "pads": [0, 1, 2, 0]}, (weights(6, 4, 3, 3),)),
    Row("Conv", {"dilations": [2, 2]}, (weights(6, 4, 3, 2), weights(6))),
    Row("Conv", {"group": 2}, (weights(6, 2, 3, 3), weights(6))),
    Row("Conv", {"group": 4}, (weights(8, 1, 3, 3), weights(8))),
    Row("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (weights(6, 4, 3, 3),)),
    Row("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (weights(6, 4, 2, 4),)),
    Row("Conv", {"auto_pad": "VALID"}, (weights(6, 4, 3, 3),)),
    Row("Conv", {"pads": [2, 1], "strides": [2]}, (weights(6, 4, 5), weights(6)), (1, 4, 20)),
    Row("Gemm", {}, (weights(12, 5), weights(5)), (3, 12)),
    Row("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (weights(5, 12), weights(5)), (3, 12)),
    Row("Gemm", {"transA": 1}, (weights(3, 5),), (3, 12)),
    Row("MatMul", {}, (weights(8, 5),)),
    Row(
        "BatchNormalization",
        {"epsilon": 1e-3},
        (weights(4), weights(4), weights(4), np.abs(weights(4))),
    ),
    Row("Relu"),
    Row("Clip", {}, (number(-0.5), number(0.75))),
    Row("Clip", {}, (None, number(0.75))),
    Row("Clip", {"min": -0.5, "max": 0.25}, opset=10),
    Row("LeakyRelu", {"alpha": 0.2}),
    Row("Sigmoid"),
    Row("Tanh"),
    Row("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    Row("HardSwish"),
    Row("Softmax"),
    Row("Softmax", {"axis": 1}),
    Row("Softmax", opset=11),
    Row("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Row("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Row("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Row("MaxPool", {"kernel_shape": [3], "dilations": [2]}, shape=(1, 4, 20)),
    Row("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Row("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    Row("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Row("GlobalAveragePool"),
    Row("ReduceMean", {"axes": [2, 3], "keepdims": 0}),
    Row("ReduceMean", {"axes": [-1]}),
    Row("ReduceMean", {"keepdims": 1}, (integers(2, 3),), opset=18),
    Row("Flatten"),
    Row("Flatten", {"axis": 2}),
    Row("Flatten", {"axis": -1}),
    Row("Reshape", {}, (integers(1, -1),)),
    Row("Reshape", {}, (integers(0, 2, 2, -1),)),
    Row("Transpose", {"perm": [0, 2, 3, 1]}),
    Row("Transpose"),
    Row("Squeeze", {}, (integers(2),), (1, 4, 1, 8)),
    Row("Squeeze", {"axes": [2]}, (), (1, 4, 1, 8), 11),
    Row("Unsqueeze", {}, (integers(2, 4),)),
    Row("Unsqueeze", {"axes": [-1]}, opset=11),
    Row("Add", {}, (weights(4, 1, 1),)),
    Row("Sub", {}, (weights(8),)),
    Row("Mul", {}, (weights(1, 4, 1, 1),)),
    Row("Div", {}, (weights(1),)),
    Row("Pad", {}, (integers(0, 0, 1, 2, 0, 0, 3, 0), number(1.5))),
    Row("Pad", {"mode": "reflect"}, (integers(0, 0, 1, 2, 0, 0, 3, 0),)),
    Row("Pad", {"mode": "edge"}, (integers(0, 0, 1, 2, 0, 0, 3, 0),)),
    Row("Concat", {"axis": 1}, (weights(1, 3, 9, 8),)),
    Row("Identity"),
    Row("Dropout"),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_operator_equals_onnxruntime(row: Row) -> None:
    inputs = np.random.default_rng(4).normal(0, 1, row.shape).astype(np.float32)
    network = row.network()
    if row.op_type == "HardSwish" and ort.version() is None:
        pytest.skip("onnxruntime is not installed")
    expected = ort.evaluate(network, inputs)["y"]
    found = evaluate(network, inputs, np.float32)["y"]
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(evaluate(network, inputs)["y"], expected, rtol=2e-5, atol=2e-5)


def test_every_operator_of_the_table_has_a_row() -> None:
    assert {row.op_type for row in ROWS} | {"Constant"} == set(EVALUATE)


def _batched(rows: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Network:
    return graph(rows, IMAGE, constants)


@pytest.mark.parametrize("target", [(1, -1), (1, 4, 72), (0, 36, -1), (-1, 288)])
def test_a_static_batch_of_one_takes_more_samples(target: tuple[int, ...]) -> None:
    network = _batched(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
            helper.make_node("Reshape", ["a", "t"], ["y"]),
        ],
        {"w": weights(4, 4, 3, 3), "t": integers(*target)},
    )
    inputs = weights(5, *IMAGE[1:])
    together = evaluate(network, inputs)["y"]
    alone = [evaluate(network, inputs[i : i + 1])["y"] for i in range(5)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12)


def test_operators_that_mix_samples_run_in_parts() -> None:
    network = _batched(
        [
            helper.make_node("Transpose", ["x"], ["a"], perm=[1, 0, 2, 3]),
            helper.make_node("Constant", [], ["k"], value_floats=[2.0]),
            helper.make_node("Mul", ["a", "k"], ["b"]),
            helper.make_node("Transpose", ["b"], ["y"], perm=[1, 0, 2, 3]),
        ],
        {},
    )
    inputs = weights(3, *IMAGE[1:])
    tensors = evaluate(network, inputs)
    np.testing.assert_array_equal(tensors["y"], inputs.astype(np.float64) * 2)
    np.testing.assert_array_equal(tensors["k"], [2.0])


def test_a_constant_of_the_static_batch_is_concatenated_to_every_sample() -> None:
    row = Row("Concat", {"axis": 1}, (weights(1, 3, 9, 8),))
    assert evaluate(row.network(), weights(5, *IMAGE[1:]))["y"].shape == (5, 7, 9, 8)


def test_a_dynamic_batch_takes_any_number_of_samples() -> None:
    network = graph([helper.make_node("Relu", ["x"], ["y"])], ("N", 3), {})
    assert evaluate(network, weights(7, 3))["y"].shape == (7, 3)


def test_every_tensor_is_returned_and_initializers_are_not() -> None:
    network = _batched(
        [
            helper.make_node("Mul", ["x", "two"], ["a"]),
            helper.make_node("Relu", ["a"], ["y"]),
        ],
        {"two": np.array([2], np.float32)},
    )
    tensors = evaluate(network, weights(*IMAGE))
    assert set(tensors) == {"x", "a", "y"}
    assert tensors["y"].dtype == np.float64


def test_an_unknown_operator_is_refused_with_its_name() -> None:
    network = graph([helper.make_node("LSTM", ["x"], ["y"], name="memory")], IMAGE, {})
    with pytest.raises(UnsupportedOperatorError, match=r"LSTM 'memory'.*runtime"):
        evaluate(network, weights(*IMAGE))


def test_shapes_that_do_not_fit_name_the_node() -> None:
    network = Row("MatMul", {}, (weights(3, 3),)).network()
    with pytest.raises(GraphError, match="MatMul 'n'"):
        evaluate(network, weights(*IMAGE))


def test_samples_that_do_not_fill_a_batch_are_refused() -> None:
    network = graph([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], (2, 3), {})
    with pytest.raises(DataError, match="batches of 2"):
        evaluate(network, weights(3, 3))
