"""The numpy evaluator on whole graphs: inputs, outputs, batches, types, errors."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.errors import DataError, GraphError, UnsupportedOperatorError
from deploykit.reference.float import evaluate, evaluate_outputs
from deploykit.reference.float_samples import STATIC
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.reference.float_cases import (
    IMAGE,
    ROWS,
    Row,
    graph,
    integers,
    network,
    number,
    weights,
)

BATCHES = 4
"""As many as the test image has channels: an axis taken for another one would still fit."""

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


VALUED = {"ConstantOfShape", "Range"}
"""Operators whose output has a shape that depends on the samples' values."""


@pytest.mark.parametrize("row", [row for row in ROWS if row.op_type not in VALUED], ids=str)
def test_more_samples_than_the_static_batch_equal_each_batch_alone(row: Row) -> None:
    net = row.network()
    parts = [np.roll(row.inputs(), shift, -1) for shift in range(BATCHES)]
    alone = [evaluate_outputs(net, {"x": part}) for part in parts]
    together = evaluate_outputs(net, {"x": np.concatenate(parts)})
    for name, found in together.items():
        each = [one[name] for one in alone]
        wanted = each[0] if row.op_type in STATIC or not each[0].ndim else np.concatenate(each)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def _batched(rows: list[onnx.NodeProto], constants: dict[str, AnyArray]) -> Network:
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


def test_samples_that_do_not_fill_a_batch_are_evaluated_beside_the_last_one() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Softmax", ["t"], ["s"], axis=0),
        helper.make_node("Transpose", ["s"], ["y"], perm=[1, 0]),
    ]
    network, samples = graph(nodes, (2, 3), {}), weights(4, 3)
    whole = evaluate(network, samples)
    found = evaluate(network, samples[:3])
    assert {name: len(values) for name, values in found.items()} == {"x": 3, "t": 6, "s": 6, "y": 3}
    for name in ("x", "y"):
        np.testing.assert_array_equal(found[name], whole[name][:3])


def test_no_samples_fill_no_batch() -> None:
    network = graph([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], (2, 3), {})
    with pytest.raises(DataError, match="0 samples fill no batch of 2"):
        evaluate(network, weights(0, 3))


def two_inputs(batch: int | str = 1) -> Network:
    """y = x * w + embedding[token], z = the larger half of y's channels."""
    return network(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Gather", ["table", "token"], ["e"]),
            helper.make_node("Add", ["a", "e"], ["y"]),
            helper.make_node("Split", ["y"], ["low", "high"], axis=1),
            helper.make_node("Max", ["low", "high"], ["z"]),
        ],
        {"x": (FLOAT, (batch, 3)), "token": (INT64, (batch,))},
        {"w": weights(3, 6), "table": weights(9, 6)},
        ["z", "y"],
        opset=13,
    )


@pytest.mark.parametrize("batch", ["N", 1, 2, 4])
def test_several_inputs_and_outputs_by_name(batch: int | str) -> None:
    inputs = {"x": weights(4, 3), "token": integers(8, 0, 3, 3)}
    found, expected = evaluate(two_inputs(batch), inputs), ort.evaluate(two_inputs(batch), inputs)
    assert set(found) == set(expected) == {"x", "token", "a", "e", "y", "low", "high", "z"}
    assert found["token"].dtype == np.int64
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5)
    outputs = evaluate_outputs(two_inputs(batch), inputs)
    assert list(outputs) == ["z", "y"]
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, found[name])


def test_an_input_in_its_static_shape_is_shared_among_the_samples_of_another() -> None:
    nodes = [helper.make_node("Mul", ["x", "gain"], ["y"])]
    net = network(nodes, {"x": (FLOAT, (1, 3)), "gain": (FLOAT, (1, 3))}, {}, ["y"])
    inputs = {"x": weights(5, 3), "gain": weights(1, 3)}
    wanted = inputs["x"] * inputs["gain"]
    np.testing.assert_allclose(evaluate(net, inputs)["y"], wanted, rtol=1e-6)
    np.testing.assert_allclose(ort.evaluate(net, inputs)["y"], wanted, rtol=1e-6)


def test_inputs_that_fill_different_numbers_of_batches_are_refused() -> None:
    inputs = {"x": weights(4, 3), "token": integers(1, 2, 3)}
    with pytest.raises(DataError, match="x 4 for 1, token 3 for 1"):
        evaluate(two_inputs(), inputs)
    with pytest.raises(DataError, match="x 4 for 1, token 3 for 1"):
        ort.evaluate(two_inputs(), inputs)


@pytest.mark.parametrize("names", [("x",), ("x", "token", "other")])
def test_inputs_that_are_missing_or_unknown_are_refused(names: tuple[str, ...]) -> None:
    inputs = dict.fromkeys(names, integers(1))
    for evaluator in (evaluate, ort.evaluate):
        with pytest.raises(DataError, match="exactly those"):
            evaluator(two_inputs(), inputs)


def test_one_array_for_several_inputs_is_refused() -> None:
    for evaluator in (evaluate, ort.evaluate):
        with pytest.raises((DataError, GraphError), match="by name"):
            evaluator(two_inputs(), weights(1, 3))


def test_floats_for_an_integer_input_are_refused() -> None:
    for evaluator in (evaluate, ort.evaluate):
        with pytest.raises(DataError, match="token"):
            evaluator(two_inputs(), {"x": weights(1, 3), "token": np.array([0.5])})


def test_an_initializer_that_is_listed_as_an_input_is_none() -> None:
    net = network(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        {"x": (FLOAT, (1, 3)), "w": (FLOAT, (3,))},
        {"w": weights(3)},
        ["y"],
    )
    np.testing.assert_allclose(
        evaluate_outputs(net, weights(1, 3))["y"], ort.evaluate(net, weights(1, 3))["y"]
    )


def test_initializers_of_several_widths_are_evaluated_exactly_in_float64() -> None:
    fine, coarse = np.array([1 / 3], np.float64), np.array([1 / 3], np.float32)
    half = np.array([1 / 3], np.float16)
    net = graph(
        [helper.make_node("Sum", ["x", "fine", "coarse", "half"], ["y"])],
        (1,),
        {"fine": fine, "coarse": coarse, "half": half},
    )
    exact = fine + coarse.astype(np.float64) + half.astype(np.float64)
    assert evaluate(net, np.zeros(1))["y"] == exact
    assert evaluate(net, np.zeros(1), np.float32)["y"].dtype == np.float32


def test_outputs_alone_hold_no_tensor_that_nobody_reads_any_more() -> None:
    names = [*(f"a{index}" for index in range(20)), "y"]
    nodes = [
        helper.make_node("Sin", [source], [target]) for source, target in pairwise(["x", *names])
    ]
    net, inputs = graph(nodes, ("N", 1000), {}), np.ones((100, 1000))
    peaks = []
    for evaluator in (evaluate, evaluate_outputs):
        tracemalloc.start()
        evaluator(net, inputs)
        peaks.append(tracemalloc.get_traced_memory()[1] / inputs.nbytes)
        tracemalloc.stop()
    assert peaks[0] > 20
    assert peaks[1] < 4


@pytest.mark.parametrize(
    "held",
    [
        {"value": numpy_helper.from_array(weights(2, 3))},
        {"value_float": 0.5},
        {"value_floats": [0.5, 2.0]},
        {"value_int": 3},
        {"value_ints": [3, 4]},
    ],
    ids=lambda held: next(iter(held)),
)
def test_a_constant_in_each_of_its_forms(held: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **held),
        helper.make_node("Cast", ["c"], ["f"], to=FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    net = graph(nodes, (2, 1), {})
    found, expected = evaluate(net, weights(2, 1)), ort.evaluate(net, weights(2, 1))
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)


def test_a_batch_written_as_minus_one_is_dynamic() -> None:
    net = graph([helper.make_node("Shape", ["x"], ["y"])], (-1, 3), {})
    assert evaluate(net, weights(7, 3))["y"].tolist() == [7, 3]


def test_outputs_alone_include_graph_inputs_and_initializers_that_are_outputs() -> None:
    net = network(
        [helper.make_node("Relu", ["x"], ["a"])], {"x": (FLOAT, (1, 3))}, {"w": weights(3)}, []
    )
    model = net.model.clone()
    model.graph.outputs.extend([model.graph.inputs[0], model.graph.initializers["w"]])
    outputs = evaluate_outputs(Network(model, {}), weights(1, 3))
    np.testing.assert_array_equal(outputs["x"], weights(1, 3))
    np.testing.assert_array_equal(outputs["w"], weights(3))


def test_a_view_of_the_batch_size_read_from_the_shape_takes_more_samples_at_once() -> None:
    net = graph(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["a"]),
            helper.make_node("Expand", ["token", "e"], ["c"]),
            helper.make_node("Concat", ["c", "a"], ["y"], axis=1),
        ],
        (1, 4, 6),
        {
            "zero": integers(0),
            "rest": integers(3, 8),
            "token": weights(1, 1, 8),
            "e": integers(1, 1, 8),
        },
    )
    tensors = evaluate(net, weights(5, 4, 6))
    assert tensors["s"].tolist() == [1, 4, 6]
    np.testing.assert_array_equal(tensors["a"], weights(5, 4, 6).reshape(5, 3, 8))
    assert tensors["y"].shape == (5, 4, 8)


def test_batches_whose_shapes_depend_on_values_are_refused() -> None:
    nodes = [helper.make_node("ConstantOfShape", ["x"], ["y"])]
    net = graph(nodes, (2,), {}, element=INT64)
    with pytest.raises(GraphError, match="'y' depends on the samples"):
        evaluate(net, integers(1, 2, 3, 4))


def test_an_output_that_a_rule_does_not_give_is_refused_where_it_is_read() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["y", "indices"], name="pool", kernel_shape=[2, 2]),
        helper.make_node("Shape", ["indices"], ["s"]),
    ]
    unread = graph(nodes[:1], IMAGE, {})
    assert set(evaluate(unread, weights(*IMAGE))) == {"x", "y"}
    with pytest.raises(UnsupportedOperatorError, match="MaxPool 'pool': its output 1 is read"):
        evaluate(graph(nodes, IMAGE, {}), weights(*IMAGE))


def test_a_graph_output_that_nothing_computes_is_named() -> None:
    net = graph([helper.make_node("Relu", ["x"], ["a"])], IMAGE, {}, outputs=["y"])
    with pytest.raises(GraphError, match="'y'"):
        evaluate_outputs(net, weights(*IMAGE))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row("Resize", {"antialias": 1}, (None, number(1)), opset=18), "antialiased"),
        (Row("LpNormalization", {"p": 3}), "order 3"),
        (Row("Cast", {"to": TensorProto.STRING}), "STRING"),
        (Row("BatchNormalization", {"training_mode": 1}, (weights(4),) * 4), "training mode"),
        (Row("ScatterND", {"reduction": "xor"}, (integers(0), weights(1)), opset=18), "'xor'"),
        (Row("Gelu", {"approximate": "erf"}, opset=20), "'erf'"),
    ],
)
def test_forms_of_an_operator_that_are_not_evaluated_are_refused(row: Row, why: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=rf"{row.op_type} 'n': .*{why}"):
        evaluate(row.network(), row.inputs())
