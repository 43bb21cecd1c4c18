"""ONNX Runtime behind its four functions."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.onnx_probe import probe_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.errors import DataError, GraphError, RuntimeUnavailableError
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.network import Network
from deploykit.spec.quantized import IoType
from tests.suite.cases import CASES, Case

RESIDUAL: Case = next(case for case in CASES if case.name == "residual-downsample")


def float_network(batch: int | str = 1) -> Network:
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Constant", [], ["k"], value_float=2.0),
            helper.make_node("Mul", ["r", "k"], ["m"]),
            helper.make_node("GlobalAveragePool", ["m"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return Network(ir.from_proto(model), {})


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_evaluate_returns_every_tensor_that_fusion_would_hide(batch: int | str) -> None:
    inputs = np.random.default_rng(1).normal(0, 1, (4, 3, 5, 5)).astype(np.float32)
    network = float_network(batch)
    found, expected = ort.evaluate(network, inputs), evaluate(network, inputs, np.float32)
    assert set(found) == {"x", "c", "r", "m", "y"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5)


def test_evaluate_leaves_the_network_as_it_was() -> None:
    network = float_network()
    ort.evaluate(network, np.zeros((1, 3, 5, 5), np.float32))
    assert [value.name for value in network.model.graph.outputs] == ["y"]


def test_a_static_batch_is_looped_over() -> None:
    data = write_onnx(RESIDUAL.network(IoType.INT8))
    values = RESIDUAL.inputs()
    together = ort.run(data, values)["output"]
    alone = [ort.run(data, {"input": row[None]})["output"] for row in values["input"]]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_a_probe_takes_integers_or_the_ports_own_type() -> None:
    network = RESIDUAL.network(IoType.FLOAT)
    data, integers = probe_onnx(write_onnx(network)), RESIDUAL.inputs()["input"]
    real = network.tensors["x0"].quantization.dequantize(integers)
    found, expected = ort.run_probe(data, {"input": real}), ort.run_probe(data, {"input": integers})
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(DataError, match=r"inputs \['input'\]"):
        ort.run(write_onnx(RESIDUAL.network()), {"image": np.zeros(1)})


def test_samples_that_do_not_fill_the_last_batch_are_all_answered() -> None:
    inputs = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    whole = ort.evaluate(float_network(2), inputs)
    odd = ort.evaluate(float_network(2), inputs[:3])
    for name, values in whole.items():
        np.testing.assert_array_equal(odd[name], values[:3])


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        ort.evaluate(float_network(2), np.zeros((0, 3, 5, 5), np.float32))


def test_a_file_that_does_not_load_is_refused_in_a_sentence() -> None:
    with pytest.raises(GraphError, match="does not load the file"):
        ort.run(b"no onnx file", {})


def test_a_missing_runtime_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("no module")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert ort.version() is None
    with pytest.raises(RuntimeUnavailableError, match="pip install onnxruntime"):
        ort.run(b"", {})


def test_version() -> None:
    assert ort.version()


def test_a_file_that_fails_as_it_runs_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=1)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("i", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    given = {"x": np.ones((1, 4), np.float32), "i": np.array([3])}
    assert ort.run(model.SerializeToString(), given)["y"].tolist() == [[1.0]]
    with pytest.raises(GraphError, match="does not run the file"):
        ort.run(model.SerializeToString(), {**given, "i": np.array([9])})


def tied() -> bytes:
    """Two convolutions that read one dequantized weight, whose products fit every kernel's sums."""
    weight = np.random.default_rng(0).integers(-63, 64, (8, 8, 3, 3)).astype(np.int8)
    held = {
        "s": np.float32(0.05), "z": np.uint8(128), "w": weight,
        "ws": np.full(8, 0.01, np.float32), "wz": np.zeros(8, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["a"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"]),
        helper.make_node("Conv", ["ad", "wd"], ["b"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["bq"]),
        helper.make_node("DequantizeLinear", ["bq", "s", "z"], ["y"]),
    ]
    shape = [1, 8, 6, 6]
    graph = helper.make_graph(
        nodes, "tied",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def test_exact_sums_take_a_tied_weight_and_give_the_kernels_integers_where_those_fit() -> None:
    inputs = {"x": np.random.default_rng(1).standard_normal((4, 8, 6, 6)).astype(np.float32)}
    kernels, exact = (ort.run(tied(), inputs, sums=sums)["y"] for sums in ort.Sums)
    np.testing.assert_array_equal(exact, kernels)
    assert len(np.unique(exact)) > 20
    separate = onnx.load_from_string(ort.with_own_constants(tied()))
    onnx.checker.check_model(separate, full_check=True)
    readers = [node for node in separate.graph.node if node.op_type == "Conv"]
    assert len({node.input[1] for node in readers}) == 2
