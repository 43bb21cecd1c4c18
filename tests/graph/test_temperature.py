"""Logits divided by a temperature, wherever their layer keeps its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import GraphError
from deploykit.graph.temperature import divided_logits
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.graph.text import graph, weights

HEAD = "(float[2,6] input) => (float[2,4] output) {{ {} }}"
X = weights(2, 6, seed=9)
OWN = np.array([1.6, 0.7, 2.0, 1.0])
"""A divisor for each channel; a temperature has nearly equal ones."""
HELD = {"w": weights(4, 6), "wt": weights(6, 4), "b": weights(4, seed=1), "one": weights(1, seed=2)}


def output(network: Network) -> AnyArray:
    return evaluate(network, X)["output"]


def network_of(body: str, *variance: str) -> Network:
    constants = {name: array for name, array in HELD.items() if f"{name}" in body}
    return graph(HEAD.format(body), constants, variance)


@pytest.mark.parametrize(
    "body",
    [
        "output = Gemm<transB=1>(input, w, b)",
        "output = Gemm<transB=1>(input, w)",
        "output = MatMul(input, wt)",
        "output = Gemm<transB=0>(input, wt, one)",
        "m = MatMul(input, wt) output = Add(m, b)",
        "m = MatMul(input, wt) output = Sub(b, m)",
        "m = Gemm<transB=1>(input, w, b) output = Identity(m)",
    ],
)
def test_the_output_is_divided_and_nothing_added(body: str) -> None:
    before = network_of(body)
    after = divided_logits(before, OWN)
    np.testing.assert_allclose(output(after), output(before) / OWN, rtol=1e-5, atol=1e-7)
    ops = [[node.op_type for node in one.model.graph] for one in (before, after)]
    assert ops[0] == ops[1]


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
def test_a_softmax_reads_the_divided_logits(tail: str) -> None:
    plain = network_of("output = Gemm<transB=1>(input, w, b)")
    z = output(plain) / 1.6
    after = divided_logits(
        network_of(f"z = Gemm<transB=1>(input, w, b) output = {tail}<axis=-1>(z)"), np.full(4, 1.6)
    )
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expected = expected if tail == "Softmax" else np.log(expected)
    np.testing.assert_allclose(output(after), expected, rtol=1e-5)


def test_variances_shrink_by_the_square() -> None:
    before = network_of("output = Gemm<transB=1>(input, w, b)", "w", "b")
    after = divided_logits(before, np.full(4, 2.0))
    for name in ("w", "b"):
        np.testing.assert_allclose(after.variance[name], before.variance[name] / 4)
    np.testing.assert_array_equal(output(before), output(divided_logits(after, np.full(4, 0.5))))


def test_a_weight_that_others_read_too_is_copied() -> None:
    square = weights(6, 6, seed=3)
    before = graph(
        "(float[2,6] input) => (float[2,6] output) "
        "{ m = MatMul(input, s) r = Relu(m) output = MatMul(r, s) }",
        {"s": square},
    )
    after = divided_logits(before, np.full(6, 3.0))
    np.testing.assert_allclose(output(after), output(before) / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("m = Gemm<transB=1>(input, w, b) output = Relu(m)", "the logits come from Relu 'output'"),
        ("m = Gemm<transB=1>(input, w, b) r = Relu(m) output = Add(m, r)",
         "the logits come from Add 'output', which has no weights"),
        ("m = MatMul(input, wt) a = Add(m, b) s = Softmax<axis=1>(a) output = Mul(a, s)",
         "the logits come from Mul"),
    ],
)  # fmt: skip
def test_other_ends_are_refused(body: str, sentence: str) -> None:
    with pytest.raises(GraphError, match=sentence):
        divided_logits(network_of(body), OWN)
