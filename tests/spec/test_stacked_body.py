"""A body for several samples gives, for each of them, what the body for one gives."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import UnsupportedOperatorError
from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import AnyArray
from deploykit.spec.stacked_body import stacked_body
from tests.quantize.graphs import float_network, seeded

THREE = 3
RECURRENT = {
    "w": seeded(2, 20, 4, seed=1), "r": seeded(2, 20, 5, seed=2), "b": seeded(2, 40, seed=3),
    "zero": np.zeros((2, 2, 5), np.float32),
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, AnyArray]]] = {
    "sum with rows": ("float[6,4] x) => (float[6,4] y) { y = Add (x, k)", {"k": seeded(6, 4)}),
    "sum with a column": ("float[6,4] x) => (float[6,4] y) { y = Add (x, k)", {"k": seeded(6, 1)}),
    "sum with features": ("float[6,4] x) => (float[6,4] y) { y = Add (x, k)", {"k": seeded(4)}),
    "sum of two ranks": (
        "float[6,4] x) => (float[2,6,4] y) { s = Expand (x, k) y = Mul (s, x)",
        {"k": np.array([2, 6, 4])}),
    "turned": ("float[3,4,5] x) => (float[5,3,4] y) { y = Transpose <perm=[2,0,1]> (x)", {}),
    "turned past ones": (
        "float[1,4,1,5] x) => (float[4,1,5,1] y) { y = Transpose <perm=[1,0,3,2]> (x)", {}),
    "mean of rows": ("float[3,4] x) => (float[4] y) { y = ReduceMean <keepdims=0> (x, k)",
                     {"k": np.array([0])}),
    "mean of all": ("float[3,4] x) => (float[1,1] y) { y = ReduceMean (x, k)",
                    {"k": np.array([-1, 0])}),
    "one row": ("float[3,4] x) => (float[4] y) { y = Gather (x, k)", {"k": np.array(1)}),
    "rows": ("float[3,4] x) => (float[2,4] y) { y = Gather <axis=0> (x, k)",
             {"k": np.array([2, 0])}),
    "cut rows": ("float[5,4] x) => (float[2,4] y) { y = Slice (x, a, b, c)",
                 {"a": np.array([1]), "b": np.array([3]), "c": np.array([0])}),
    "cut features": ("float[5,4] x) => (float[5,2] y) { y = Slice (x, a, b, c)",
                     {"a": np.array([1]), "b": np.array([3]), "c": np.array([-1])}),
    "padded rows": ("float[2,4] x) => (float[5,4] y) { y = Pad (x, k)",
                    {"k": np.array([1, 0, 2, 0])}),
    "split rows": (
        "float[4,3] x) => (float[2,3] y) { a, b = Split <axis=0, num_outputs=2> (x) y = Sub (a, b)",
        {}),
    "joined rows": ("float[2,3] x) => (float[4,3] y) { y = Concat <axis=0> (x, x)", {}),
    "joined with constants": (
        "float[2,3] x) => (float[2,9] y) { y = Concat <axis=1> (k, x, k, x, k)",
        {"k": seeded(2, 1), }),
    "a token in front": ("float[1,3,4] x) => (float[1,4,4] y) { y = Concat <axis=1> (k, x)",
                         {"k": seeded(1, 1, 4)}),
    "softmax of rows": ("float[3,4] x) => (float[3,4] y) { y = Softmax <axis=0> (x)", {}),
    "products of rows": (
        "float[3,4] x) => (float[3,3] y) { t = Transpose <perm=[1,0]> (x) y = MatMul (x, t)", {}),
    "stacked products": (
        "float[2,3,4] x) => (float[2,3,3] y) "
        "{ t = Transpose <perm=[0,2,1]> (x) y = MatMul (x, t)", {}),
    "stacked weights": ("float[2,3,4] x) => (float[2,3,5] y) { y = MatMul (x, k)",
                        {"k": seeded(2, 4, 5)}),
    "weights in front": ("float[3,4] x) => (float[5,4] y) { y = MatMul (k, x)",
                         {"k": seeded(5, 3)}),
    "layers of rows": ("float[3,4] x) => (float[3,4] y) { y = LayerNormalization <axis=0> (x, k)",
                       {"k": seeded(3, 4)}),
    "lstm": (
        "float[4,2,4] x) => (float[4,2,2,5] y) "
        "{ y, h, c = LSTM <hidden_size=5, direction=\"bidirectional\"> (x, w, r, b, , zero)",
        RECURRENT),
    "last states": (
        "float[4,2,4] x) => (float[2,2,5] h) "
        "{ y, h, c = LSTM <hidden_size=5, direction=\"bidirectional\"> (x, w, r, b)",
        {name: RECURRENT[name] for name in "wrb"}),
    "computed states": (
        "float[4,2,4] x) => (float[2,2,5] h) "
        "{ f = Slice (x, a, e, c) s = MatMul (f, m) "
        "y, h = GRU <hidden_size=5, direction=\"bidirectional\", linear_before_reset=1> "
        "(x, w, r, b, , s)",
        {"w": seeded(2, 15, 4, seed=1), "r": seeded(2, 15, 5, seed=2), "b": seeded(2, 30, seed=3),
         "a": np.array([1]), "e": np.array([3]), "c": np.array([0]), "m": seeded(4, 5, seed=4)}),
    "a choice": (
        "float[3,4] x) => (float[3,4] y) { g = Greater (x, k) n = Not (g) c = Cast <to=1> (n) "
        "w = Where (g, x, k) y = Add (w, c)", {"k": seeded(4)}),
    "sizes": (
        'float[1,2,3,3] x) => (float[1,2,6,6] y) { y = Resize <mode="linear"> (x, , , k)',
        {"k": np.array([1, 2, 6, 6])}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "constants"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("stated", [1, THREE])
def test_each_sample_gets_its_own(text: str, constants: dict[str, AnyArray], stated: int) -> None:
    body = float_network(f"g ({text} }}", **constants)
    (port,) = body.model.graph.inputs
    shape = tuple(int(size) for size in port.shape)  # type: ignore[union-attr, arg-type]
    samples = seeded(THREE, *shape, seed=9)
    wanted = [next(iter(evaluate_outputs(body, {"x": one}).values())) for one in samples]
    many = stacked_body(body, THREE)
    found = next(iter(evaluate_outputs(many, {"x": samples.reshape(-1, *shape[1:])}).values()))
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-12)
    nodes = stacked_body(body, stated).model.graph
    assert [node.op_type for node in nodes] == [node.op_type for node in many.model.graph]


def test_an_operator_without_a_form_is_named() -> None:
    body = float_network("g (float[2,3] x) => (float[2,3] y) { y = CumSum (x, k) }",
                         k=np.array(1))  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match=r"y: operator CumSum: .* leave --batch out"):
        stacked_body(body, 1)
