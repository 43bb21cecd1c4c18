"""Parameters and multiply-accumulates, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import GraphError
from deploykit.graph.cost import LayerCost, layer_costs, totals
from deploykit.spec.network import Network
from tests.graph.text import graph, weights


def network() -> Network:
    return graph(
        """
        (float[2,3,8,8] input) => (float[2,5] output) {
            a = Conv<strides=[2,2], pads=[1,1,1,1]>(input, w, b)
            s = Mul(a, gate)
            r = Clip(s, low, high)
            d = Conv<group=4>(r, v)
            f = Flatten(d)
            output = Gemm<transB=1>(f, u, c)
        }
        """,
        {"w": weights(4, 3, 3, 3), "b": weights(4), "gate": weights(4, 1, 1), "low": 0.0,
         "high": 6.0, "v": weights(4, 1, 3, 3), "u": weights(5, 16), "c": weights(5)},
    )  # fmt: skip


def test_every_layer_is_counted_for_one_sample() -> None:
    assert layer_costs(network().model) == (
        LayerCost("a", "Conv", 4 * 3 * 9 + 4, 4 * 3 * 9 * 16),
        LayerCost("s", "Mul", 4, 0),
        LayerCost("d", "Conv", 4 * 9, 4 * 9 * 4),
        LayerCost("output", "Gemm", 5 * 16 + 5, 5 * 16),
    )


def test_totals_are_their_sums() -> None:
    costs = layer_costs(network().model)
    sums = sum(cost.parameters for cost in costs), sum(cost.macs for cost in costs)
    assert totals(network().model) == sums == (237, 1728 + 144 + 80)


def test_a_product_over_a_sequence_counts_every_step() -> None:
    sequence = graph(
        "(float[2,7,3] input) => (float[2,7,4] output) { output = MatMul(input, w) }",
        {"w": weights(3, 4)},
    )
    assert totals(sequence.model) == (12, 7 * 12)


def test_a_symbolic_batch_is_one_sample() -> None:
    one = graph(
        "(float[N,3,8,8] input) => (float[N,4,6,6] output) { output = Conv(input, w) }",
        {"w": weights(4, 3, 3, 3)},
    )
    assert totals(one.model) == (108, 108 * 36)


def test_a_shape_that_is_not_known_is_said_and_not_counted_as_one_position() -> None:
    unknown = network()
    next(iter(unknown.model.graph)).outputs[0].shape = None
    with pytest.raises(GraphError, match="shape of a is not known"):
        totals(unknown.model)


def test_integers_and_bounds_are_no_parameters() -> None:
    shaping = graph(
        """
        (float[1,4] input) => (float[1,2,2] output) {
            a = Clip(input, low)
            output = Reshape(a, to)
        }
        """,
        {"low": 0.0, "to": np.array([1, 2, 2])},
    )
    assert layer_costs(shaping.model) == ()


def test_a_transposed_convolution_multiplies_at_every_input_position() -> None:
    """Stride 2 doubles the output, not the work: 9 pixels, each spread by 3 * 4 * 2 * 2."""
    upsampled = graph(
        """
        (float[1,3,3,3] input) => (float[1,4,6,6] output) {
            output = ConvTranspose<strides=[2,2]>(input, w, b)
        }
        """,
        {"w": weights(3, 4, 2, 2), "b": weights(4)},
    )
    assert totals(upsampled.model) == (3 * 4 * 4 + 4, 9 * 3 * 4 * 4)


def test_a_product_of_activations_has_work_and_no_parameters() -> None:
    """Two heads, 5 x 3 times 3 x 5."""
    scores = graph(
        """
        (float[1,2,5,3] left, float[1,2,3,5] right) => (float[1,2,5,5] output) {
            output = MatMul(left, right)
        }
        """,
        {},
    )
    assert layer_costs(scores.model) == (LayerCost("output", "MatMul", 0, 2 * 5 * 5 * 3),)


def test_a_recurrent_layer_multiplies_both_its_weights_at_every_time() -> None:
    """Two directions, 7 times: 3*5 x 4 weights of inputs, 3*5 x 5 of states, 6*5 biases."""
    gru = graph(
        """
        (float[7,1,4] input) => (float[7,2,1,5] output) {
            output = GRU<hidden_size=5, direction="bidirectional">(input, w, r, b)
        }
        """,
        {"w": weights(2, 15, 4), "r": weights(2, 15, 5), "b": weights(2, 30)},
    )
    inner = 2 * 15 * (4 + 5)
    assert totals(gru.model) == (inner + 2 * 30, 7 * inner)
