"""Every operator of the numpy evaluator against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.reference.float import evaluate, evaluate_outputs
from deploykit.reference.float_samples import ADAPTIONS
from deploykit.reference.float_table import EVALUATE
from deploykit.runtime import ort
from tests.reference.float_cases import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_operator_equals_onnxruntime(row: Row) -> None:
    network, inputs = row.network(), row.inputs()
    expected = ort.evaluate(network, {"x": inputs})
    single = evaluate(network, {"x": inputs}, np.float32)
    double = evaluate_outputs(network, {"x": inputs})
    assert set(double) == {value.name for value in network.model.graph.outputs}
    for name, wanted in double.items():
        assert single[name].dtype == expected[name].dtype
        assert wanted.dtype == (np.float64 if wanted.dtype.kind == "f" else expected[name].dtype)
        assert single[name].shape == wanted.shape == expected[name].shape
        for found in (single[name], wanted):
            np.testing.assert_allclose(found, expected[name], rtol=5e-5, atol=5e-5)


def test_every_operator_of_the_table_has_a_row() -> None:
    assert {row.op_type for row in ROWS} | {"Constant"} == set(EVALUATE)


def test_every_operator_that_takes_more_samples_is_in_the_table() -> None:
    assert set(ADAPTIONS) <= set(EVALUATE)
