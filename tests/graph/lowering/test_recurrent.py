"""Recurrent layers of which more than one result is read."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.lowering import lower
from deploykit.reference.float import evaluate
from deploykit.spec.network import Network
from tests.graph.lowering.test_lowering import operators
from tests.quantize.graphs import float_network, seeded


def layer(kind: str, outputs: str, text: str) -> Network:
    """A layer of 5 hidden numbers over 7 times of 4."""
    gates = {"GRU": 3, "LSTM": 4}[kind]
    return float_network(
        f"g (float[7,1,4] input) => (float[1,1,5] output) {{ "
        f"{outputs} = {kind} <hidden_size=5> (input, w, r) {text} }}",
        w=seeded(1, 5 * gates, 4), r=seeded(1, 5 * gates, 5, seed=1), zero=np.array([0]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "outputs", "text", "count"),
    [
        ("GRU", "y, h", "m = ReduceMean <keepdims=0> (y, zero) output = Add (m, h)", 2),
        ("LSTM", "y, h, c", "s = Add (h, c) m = ReduceMean <keepdims=0> (y, zero) "
         "output = Add (m, s)", 3),
        ("GRU", "y, h", "output = Relu (h)", 1),
    ],
)  # fmt: skip
def test_every_result_that_is_read_gets_a_layer_of_its_own(
    kind: str, outputs: str, text: str, count: int
) -> None:
    network = layer(kind, outputs, text)
    lowered = lower(network)
    assert operators(lowered)[kind] == count
    for node in lowered.model.graph:
        if node.op_type == kind:
            assert sum(bool(value.uses()) for value in node.outputs) == 1
    values = np.random.default_rng(0).normal(size=(7, 1, 4)).astype(np.float32)
    np.testing.assert_allclose(
        evaluate(lowered, values)["output"], evaluate(network, values)["output"], rtol=1e-6
    )
