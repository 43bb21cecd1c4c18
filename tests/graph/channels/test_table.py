"""Every operator of the table binds where it should, and nothing else does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.graph.channels.liveness import analyse
from deploykit.graph.channels.table import RULES, candidates
from deploykit.reference.float_table import EVALUATE
from tests.graph.removing import first_layer
from tests.graph.text import graph


def test_every_row_can_be_evaluated_for_its_certificate() -> None:
    assert set(RULES) <= set(EVALUATE)


@pytest.mark.parametrize("dtype", [ir.DataType.INT64, ir.DataType.BOOL, None])
def test_a_tensor_that_is_not_known_to_be_float_is_a_border(dtype: ir.DataType | None) -> None:
    network = graph(
        "(float[1,2,3,3] input) => (float[1,2,3,3] output) { output = Relu(input) }", {}
    )
    (node,) = network.model.graph
    assert candidates(node)
    node.outputs[0].type = None if dtype is None else ir.TensorType(dtype)
    assert candidates(node) == []


def test_a_tensor_of_unknown_rank_and_one_of_unknown_sizes_are_borders() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            output = Relu(r)
        }
        """,
        first_layer([0.5, 0.0], live=[0]),
    )
    middle = network.model.graph[1]
    middle.outputs[0].shape = None
    assert candidates(middle) == []
    assert analyse(network.model.graph).structure.borders == ("r (Relu)", "output (Relu)")
    middle.outputs[0].shape = ir.Shape([1, 2, "height", 5])
    assert "r (Relu)" in analyse(network.model.graph).structure.borders


def test_an_operator_of_another_domain_is_a_border() -> None:
    network = graph(
        "(float[1,2,3,3] input) => (float[1,2,3,3] output) { output = Relu(input) }", {}
    )
    (node,) = network.model.graph
    node.domain = "com.example"
    assert candidates(node) == []


def test_a_number_and_a_vector_have_labels_too() -> None:
    network = graph(
        """
        (float[3] input) => (float output) {
            r = Relu(input)
            m = Mul(r, k)
            output = ReduceSum<keepdims=0>(m)
        }
        """,
        {"k": np.array([1.0, 0.0, 2.0])},
    )
    found = analyse(network.model.graph)
    assert found.structure.borders == ()
    assert found.structure.labels["output"].shape == ()
